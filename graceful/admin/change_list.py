"""The admin's list of reports, made for a table of a million rows: it reads no more rows than it shows.

Django's own change list counts all rows, and its date hierarchy groups them all. Ours counts up to a limit, and
offers every year, month or day between the first report and the last.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import formats
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from graceful.admin.filters import KeywordFilter
from graceful.models import ShutdownReport
from graceful.reports.rows import local_time

TIME = "happened_at"
COUNT_LIMIT = 10_000
"""How many reports are counted and paged; older ones are reached by filter, search or date."""

if TYPE_CHECKING:
    ReportPaginator = Paginator[ShutdownReport]
else:
    ReportPaginator = Paginator


class CappedPaginator(ReportPaginator):
    """A paginator that counts no further than ``COUNT_LIMIT``."""

    @cached_property
    def counted(self) -> int:
        """How many there are, at most ``COUNT_LIMIT`` + 1."""
        # Unordered, so that any index will do.
        rows: Any = self.object_list
        return int(rows.order_by()[: COUNT_LIMIT + 1].count())

    @property
    def capped(self) -> bool:
        return self.counted > COUNT_LIMIT

    @cached_property
    def count(self) -> int:
        return min(self.counted, COUNT_LIMIT)


class DateLink(NamedTuple):
    """One date to choose; the chosen one has no link."""

    title: str
    link: str = ""


class ReportChangeList(ChangeList):
    """The change list, with a date hierarchy that costs two index lookups."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[ShutdownReport]:
        counted = super().get_queryset(request, exclude_parameters)
        # The model's admin has put it there, if there was a search.
        listed = getattr(request, "graceful_listed", counted)
        self.listed = listed.defer("notes", "worker_class")
        return counted.defer("notes", "worker_class")

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.multi_page and not (self.show_all and self.can_show_all):
            first = (self.page_num - 1) * self.list_per_page
            self.result_list = self.listed[first : first + self.list_per_page]

    @property
    def time_fields(self) -> tuple[str, str]:
        """Time and id of the reports where the list is read from: a filter by keyword has them in its own index."""
        for spec in self.filter_specs:
            if isinstance(spec, KeywordFilter) and spec.value():
                return f"{spec.relation}__happened_at", f"{spec.relation}__report_id"
        return TIME, "id"

    @property
    def export_query(self) -> str:
        """The query string of this list, whichever of its pages is shown."""
        return str(self.get_query_string(remove=["p", "all", "o"]))

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[ShutdownReport]) -> list[Any]:
        time, key = self.time_fields
        names = {TIME: time, "id": key, "pk": key}
        return [_renamed(each, names) for each in super().get_ordering(request, queryset)]

    def get_filters(self, request: HttpRequest) -> Any:
        for name, value in request.GET.items():
            if not _answerable(name, str(value)):
                raise IncorrectLookupParameters(name)
        try:
            return super().get_filters(request)
        except (ValueError, OverflowError) as error:  # the year 9999 has no next one
            raise IncorrectLookupParameters(error) from error

    @cached_property
    def dates(self) -> dict[str, Any]:
        """What the template ``admin/date_hierarchy.html`` shows."""
        bounds = self._bounds()
        if bounds is None:
            return {"show": False}
        first, last = bounds
        year, month, day = (self._chosen(unit) for unit in ("year", "month", "day"))
        chosen = year is not None
        if year is None and first.year == last.year:
            year = first.year
            month = first.month if first.month == last.month else None
        shown: dict[str, Any] = {"show": True, "back": None, "field_name": _("time")}
        if year is None:
            years = range(max(first.year, last.year - 50), last.year + 1)
            return {**shown, "choices": [DateLink(str(each), self._link(each)) for each in years]}
        if month is None:
            back = DateLink(_("All dates"), self._link()) if chosen else None
            months = _months(year, first, last)
            return {**shown, "back": back, "choices": [DateLink(_month(each), self._link_to(each)) for each in months]}
        if day is None:
            back = DateLink(str(year), self._link(year)) if chosen else None
            days = _days(year, month, first, last)
            links = [DateLink(_day(each), self._link_to(each, with_day=True)) for each in days]
            return {**shown, "back": back, "choices": links}
        there = date(year, month, day)
        return {**shown, "back": DateLink(_month(there), self._link_to(there)), "choices": [DateLink(_day(there))]}

    def _bounds(self) -> tuple[date, date] | None:
        """The first and the last day that has a report, whatever the filters say."""
        moments = self.root_queryset.values_list(TIME, flat=True)
        first, last = moments.order_by(TIME).first(), moments.order_by(f"-{TIME}").first()
        return None if first is None or last is None else (local_time(first).date(), local_time(last).date())

    def _chosen(self, unit: str) -> int | None:
        # Only whole numbers get here: get_filters() has refused the rest.
        value = self.params.get(f"{TIME}__{unit}")
        return None if value is None else int(value)

    def _link_to(self, there: date, *, with_day: bool = False) -> str:
        return self._link(there.year, there.month, there.day if with_day else None)

    def _link(self, year: int | None = None, month: int | None = None, day: int | None = None) -> str:
        units = {"year": year, "month": month, "day": day}
        chosen = {f"{TIME}__{unit}": number for unit, number in units.items() if number is not None}
        return self.get_query_string(chosen, [f"{TIME}__"])


def _answerable(name: str, value: str) -> bool:
    """False for a value that only the database refuses, which is too late for a page that says so.

    PostgreSQL takes no NUL, and a number or time at the end of its range overflows on its way there.
    """
    if name == "worker" or "__" in name:
        if "\x00" in value:
            return False
        if name == f"{TIME}__day" and value.lstrip("+-").isdecimal():
            return len(value) < 3 and 1 <= int(value) <= 31
        if name in (f"{TIME}__gte", f"{TIME}__lt"):
            return not value.startswith(("0001", "9999"))
    return True


def _renamed(order: Any, names: dict[str, str]) -> Any:
    if not isinstance(order, str):
        return order
    sign = "-" if order.startswith("-") else ""
    return sign + names.get(order.removeprefix("-"), order.removeprefix("-"))


def _months(year: int, first: date, last: date) -> Iterator[date]:
    for month in range(1, 13):
        start = date(year, month, 1)
        if first.replace(day=1) <= start <= last:
            yield start


def _days(year: int, month: int, first: date, last: date) -> Iterator[date]:
    for number in range(1, monthrange(year, month)[1] + 1):
        day = date(year, month, number)
        if first <= day <= last:
            yield day


def _month(there: date) -> str:
    return str(capfirst(formats.date_format(there, "YEAR_MONTH_FORMAT")))


def _day(there: date) -> str:
    return str(capfirst(formats.date_format(there, "MONTH_DAY_FORMAT")))
