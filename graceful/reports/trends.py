"""The page of trends: shutdowns by day and release, and each exit hook over time, from the roll-ups alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db.models import Max, Min, Q, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.phases import Outcome
from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.models import Release, ShutdownRollup, outcome_choices
from graceful.reports.advice import percent
from graceful.reports.day_bars import LEAST, SLOT, Shape, bar, x_of
from graceful.reports.hook_trends import HookTrend, hook_trend, hook_trends
from graceful.reports.rows import day_of, stored_time
from graceful.reports.sentences import listed

RANGES = (7, 30, 90)
MOST_RELEASES = 20
MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class Day:
    """A day with shutdowns; ``x`` is the left edge of its slot."""

    x: int
    day: str
    shutdowns: int
    clean: str
    rest: str
    releases: str

    @property
    def title(self) -> str:
        """What the picture says when it is pointed at."""
        number = ngettext("%(number)d shutdown", "%(number)d shutdowns", self.shutdowns) % {"number": self.shutdowns}
        clean = _("%(share)s clean") % {"share": self.clean}
        facts = listed((number, clean, self.rest, self.releases))
        return _("%(day)s: %(facts)s") % {"day": self.day, "facts": facts}


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """The shutdowns of one release within the range."""

    label: str
    started: str
    shutdowns: int
    clean: str
    width: str
    interrupted: int


@dataclass(frozen=True, slots=True)
class Trends:
    """What the page shows for a range of days that ends today, in UTC."""

    days: int
    first: str
    last: str
    box: str
    summary: str
    shapes: tuple[Shape, ...]
    bars: tuple[Day, ...]
    lines: tuple[int, ...]
    releases: tuple[ReleaseRow, ...]
    more_releases: bool
    hooks: tuple[HookTrend, ...]
    more_hooks: bool
    hook: HookTrend | None


def trends(days: int, hook: str = "") -> Trends:
    """The trends of the last ``days`` days.

    Args:
        days: one of ``RANGES``.
        hook: the name of an exit hook that is to be shown day by day, or nothing.

    Raises:
        django.db.DatabaseError: the database is unreachable, or its tables are missing.
    """
    last = utc_now().date()
    first = last - timedelta(days=days - 1)
    outcomes = _outcomes(first, last)
    started = _started(first)
    bars = tuple(_day(day, outcomes[day], started.get(day, ()), first) for day in sorted(outcomes))
    releases = _releases(first)
    hooks, more_hooks = hook_trends(first, last)
    return Trends(
        days=days,
        first=f"{first}",
        last=f"{last}",
        box=f"0 0 {SLOT * days} 100",
        summary=_summary(outcomes.values()),
        shapes=_shares(outcomes, first),
        bars=bars,
        lines=tuple(sorted({x_of(day, first) for day in started if first <= day <= last})),
        releases=releases[:MOST_RELEASES],
        more_releases=len(releases) > MOST_RELEASES,
        hooks=hooks,
        more_hooks=more_hooks,
        hook=hook_trend(hook, first, last) if hook else None,
    )


def _outcomes(first: date, last: date) -> dict[date, dict[str, int]]:
    """Shutdowns of each day by outcome."""
    rows = ShutdownRollup.objects.filter(day__gte=first, day__lte=last).order_by()
    found: dict[date, dict[str, int]] = {}
    for row in rows.values("day", "outcome").annotate(number=Sum("count")):
        found.setdefault(row["day"], {})[row["outcome"]] = row["number"]
    return found


def _started(first: date) -> dict[date, tuple[str, ...]]:
    """Labels of the releases that started on each day."""
    rows = Release.objects.filter(started_at__gte=stored_time(datetime.combine(first, time(), UTC)))
    found: dict[date, tuple[str, ...]] = {}
    for label, at in rows.order_by("-started_at", "-label").values_list("label", "started_at")[:MOST_LINES]:
        found[day_of(at)] = (_label(label), *found.get(day_of(at), ()))
    return found


def _day(day: date, outcomes: Mapping[str, int], started: Iterable[str], first: date) -> Day:
    number, labels = sum(outcomes.values()), tuple(started)
    return Day(
        x=x_of(day, first),
        day=f"{day}",
        shutdowns=number,
        clean=percent(outcomes.get(Outcome.CLEAN, 0), number),
        rest=listed(
            _("%(count)d %(outcome)s") % {"count": outcomes[word], "outcome": name}
            for word, name in outcome_choices()
            if word in _unclean(outcomes)
        ),
        releases=_("release %(labels)s started") % {"labels": listed(labels)} if labels else "",
    )


def _unclean(outcomes: Mapping[str, int]) -> list[str]:
    return [word for word in Outcome if word != Outcome.CLEAN and outcomes.get(word)]


def _summary(days: Iterable[Mapping[str, int]]) -> str:
    days = list(days)
    number = sum(sum(outcomes.values()) for outcomes in days)
    clean = sum(outcomes.get(Outcome.CLEAN, 0) for outcomes in days)
    if not number:
        return _("No shutdown is known of these days.")
    text = ngettext(
        "%(share)s of %(number)d shutdown was clean.", "%(share)s of %(number)d shutdowns were clean.", number
    )
    return text % {"share": percent(clean, number), "number": number}


def _shares(outcomes: Mapping[date, Mapping[str, int]], first: date) -> tuple[Shape, ...]:
    """Bars that are full for each day with shutdowns: clean ones at the bottom."""
    paths: dict[str, list[str]] = {}
    for day, of_day in outcomes.items():
        number = sum(of_day.values())
        if number <= 0:
            continue
        top = 0.0
        for word in reversed(_unclean(of_day)):
            height = min(max(LEAST, 100 * of_day[word] / number), 100 - top)
            paths.setdefault(word, []).append(bar(x_of(day, first), top, top + height))
            top += height
        if of_day.get(Outcome.CLEAN):
            paths.setdefault(Outcome.CLEAN, []).append(bar(x_of(day, first), top, 100))
    words = dict(outcome_choices())
    return tuple(Shape(word.value, "".join(paths[word]), f"{words[word]}") for word in Outcome if word in paths)


def _releases(first: date) -> tuple[ReleaseRow, ...]:
    """The releases with the newest shutdowns first; one more than are shown, if there are more."""
    rows = ShutdownRollup.objects.filter(day__gte=first).order_by().values("release")
    found = list(
        rows.annotate(
            number=Sum("count"),
            ended_clean=Sum("count", filter=Q(outcome=Outcome.CLEAN), default=0),
            interrupted=Sum("jobs_interrupted"),
            newest=Max("day"),
            oldest=Min("day"),
        ).order_by("-newest", "-oldest", "-release")[: MOST_RELEASES + 1]
    )
    labels = [row["release"] for row in found]
    started = dict(Release.objects.filter(label__in=labels).order_by().values_list("label", "started_at"))
    return tuple(
        ReleaseRow(
            label=_label(row["release"]),
            started=f"{day_of(started[row['release']])}" if row["release"] in started else "-",
            shutdowns=row["number"],
            clean=percent(row["ended_clean"], row["number"]),
            width=f"{100 * row['ended_clean'] / max(1, row['number']):.2f}%",
            interrupted=row["interrupted"],
        )
        for row in found
    )


def _label(release: str) -> str:
    return one_line(release) or _("(no label)")
