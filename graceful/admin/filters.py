"""Filters of the list that offer what the newest reports hold, and find it by an index.

Django's own filter for such a field reads its values from the whole table. An older value is filtered by as well: by
its address, or by a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import FilteredRelation, Q, QuerySet
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext_lazy as _

from graceful.core.phases import Outcome
from graceful.core.text import one_line
from graceful.models import ReportKeyword, ShutdownReport

NEWEST = 500
"""How many of the newest reports the filters look at for values."""
NEWEST_FAILED = 100
MOST_VALUES = 20
WITH_CHOICES = ("outcome", "reason", "recycled", "signal")
"""Fields that Django's own filter is good for: it offers their choices."""
SHOWN = 40
"""Characters of a value in the sidebar."""


def in_full(query: QueryDict) -> QueryDict:
    """The query string with ``outcome=killed``, as one writes it by hand, as Django's filter links it."""
    found = query.copy()
    for field in WITH_CHOICES:
        if field in found:
            found.setlistdefault(f"{field}__exact", found.pop(field))
    return found


class RecentValues(admin.SimpleListFilter):
    """A filter whose choices are the values of the newest reports, the most frequent first."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = [value for value in self.recent(request) if value]
        values = [value for value, _count in Counter(found).most_common(MOST_VALUES)]
        chosen = self.value()
        if chosen and chosen not in values:
            values.append(chosen)
        return [(value, _short(value)) for value in values]

    def recent(self, request: HttpRequest) -> Iterable[str]:
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[ShutdownReport]) -> QuerySet[ShutdownReport]:
        value = self.value()
        return queryset if not value else self.filtered(request, queryset, value.replace("\x00", ""))

    def filtered(
        self, request: HttpRequest, queryset: QuerySet[ShutdownReport], value: str
    ) -> QuerySet[ShutdownReport]:
        return queryset.filter(**{str(self.parameter_name): value})


class KeywordFilter(RecentValues):
    """Filters by :class:`ReportKeyword`; the list is then read from that table's index, in its order."""

    kind: ReportKeyword.Kind

    @property
    def relation(self) -> str:
        """Name of the join in a query; every later condition or order that uses it is about the same row."""
        return f"by_{self.kind}"

    def filtered(
        self, request: HttpRequest, queryset: QuerySet[ShutdownReport], value: str
    ) -> QuerySet[ShutdownReport]:
        condition = Q(keywords__kind=self.kind, keywords__value=value)
        if outcome := request.GET.get("outcome__exact"):
            condition &= Q(keywords__outcome=outcome)  # The index holds that as well.
        joined = queryset.alias(**{self.relation: FilteredRelation("keywords", condition=condition)})
        return joined.filter(**{f"{self.relation}__isnull": False})


class ByRelease(RecentValues):
    title = _("release")
    parameter_name = "release"

    def recent(self, request: HttpRequest) -> Iterable[str]:
        return (release for release, _host, _queues in _newest(request))


class ByHost(RecentValues):
    title = _("host")
    parameter_name = "hostname"

    def recent(self, request: HttpRequest) -> Iterable[str]:
        return (host for _release, host, _queues in _newest(request))


class ByQueue(KeywordFilter):
    title = _("queue")
    parameter_name = "queue"
    kind = ReportKeyword.Kind.QUEUE

    def recent(self, request: HttpRequest) -> Iterable[str]:
        return (queue for _release, _host, queues in _newest(request) for queue in queues)


class ByFailedHook(KeywordFilter):
    title = _("failed exit hook")
    parameter_name = "failed_hook"
    kind = ReportKeyword.Kind.FAILED_HOOK

    def recent(self, request: HttpRequest) -> Iterable[str]:
        failed = ShutdownReport.objects.filter(outcome=Outcome.HOOKS_FAILED).order_by("-happened_at", "-id")
        ids = list(failed.values_list("pk", flat=True)[:NEWEST_FAILED])
        return ReportKeyword.objects.filter(report__in=ids, kind=self.kind).values_list("value", flat=True)


def _newest(request: HttpRequest) -> list[tuple[str, str, list[str]]]:
    """Release, host and queues of the newest reports, read once for all filters of a page."""
    found: list[tuple[str, str, list[str]]] | None = getattr(request, "graceful_newest", None)
    if found is None:
        rows = ShutdownReport.objects.order_by("-happened_at", "-id").values_list("release", "hostname", "queues")
        found = list(rows[:NEWEST])
        request.graceful_newest = found  # type: ignore[attr-defined]
    return found


def _short(value: str) -> str:
    text = one_line(value[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
