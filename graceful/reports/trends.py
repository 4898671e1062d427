"""The page of trends: shutdowns by day and release, and each exit hook over time, from the roll-ups alone.

Pictures are paths in a box of ``SLOT`` units for each day and 100 units of height; what they show is in words too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Max, Min, Q, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.histogram import quantile
from graceful.core.phases import HookOutcome, Outcome
from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.models import HookRollup, Release, ShutdownRollup, outcome_choices
from graceful.reports.advice import percent
from graceful.reports.rows import day_of, stored_time
from graceful.reports.sentences import listed
from graceful.reports.text import seconds_text

RANGES = (7, 30, 90)
SLOT, BAR = 10, 8
LEAST = 3
"""Least height of what was not clean, so that one in a thousand is seen."""
MOST_RELEASES = 20
MOST_LINES = 200
MOST_HOOKS = 25
BAD = (HookOutcome.FAILED, HookOutcome.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Shape:
    """Bars of one colour, as a path of SVG."""

    kind: str
    path: str
    words: str = ""


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
class HookDay:
    """One day of one hook, in words."""

    day: str
    runs: int
    p50: str
    p95: str
    failed: int
    timed_out: int


@dataclass(frozen=True, slots=True)
class HookTrend:
    """One exit hook over time; ``days`` is empty unless they are asked for."""

    name: str
    shown: str
    runs: int
    p50: str
    p95: str
    failed: int
    timed_out: int
    shapes: tuple[Shape, ...]
    words: str
    days: tuple[HookDay, ...] = ()


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
    hooks, more_hooks = _hooks(first, last)
    return Trends(
        days=days,
        first=f"{first}",
        last=f"{last}",
        box=f"0 0 {SLOT * days} 100",
        summary=_summary(outcomes.values()),
        shapes=_shares(outcomes, first),
        bars=bars,
        lines=tuple(sorted({_x(day, first) for day in started if first <= day <= last})),
        releases=releases[:MOST_RELEASES],
        more_releases=len(releases) > MOST_RELEASES,
        hooks=hooks,
        more_hooks=more_hooks,
        hook=_one_hook(hook, first, last) if hook else None,
    )


# -- shutdowns ---------------------------------------------------------------------------------------------------------


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
        x=_x(day, first),
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
            paths.setdefault(word, []).append(_bar(_x(day, first), top, top + height))
            top += height
        if of_day.get(Outcome.CLEAN):
            paths.setdefault(Outcome.CLEAN, []).append(_bar(_x(day, first), top, 100))
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


# -- exit hooks --------------------------------------------------------------------------------------------------------

Runs = dict[str, tuple[int, list[int]]]
"""By outcome: how often, and the histogram."""


def _hooks(first: date, last: date) -> tuple[tuple[HookTrend, ...], bool]:
    """The hooks that failed or timed out most first, then those that ran most; and whether there are more."""
    rollups = HookRollup.objects.filter(day__gte=first, day__lte=last).order_by()
    worst = list(
        rollups.values("name")
        .annotate(runs=Sum("count"), bad=Sum("count", filter=Q(outcome__in=BAD), default=0))
        .order_by("-bad", "-runs", "name")
        .values_list("name", flat=True)[: MOST_HOOKS + 1]
    )
    names = worst[:MOST_HOOKS]
    found: dict[str, dict[date, Runs]] = {name: {} for name in names}
    for row in _rows(rollups.filter(name__in=names)):
        found[row["name"]].setdefault(row["day"], {})[row["outcome"]] = (row["count"], row["histogram"])
    return tuple(_hook(name, found[name], first) for name in names), len(worst) > MOST_HOOKS


def _one_hook(name: str, first: date, last: date) -> HookTrend | None:
    if "\x00" in name:
        return None
    by_day: dict[date, Runs] = {}
    for row in _rows(HookRollup.objects.filter(day__gte=first, day__lte=last, name=name)):
        by_day.setdefault(row["day"], {})[row["outcome"]] = (row["count"], row["histogram"])
    return _hook(name, by_day, first, with_days=True) if by_day else None


def _rows(rollups: Any) -> Any:
    return rollups.order_by().values("name", "day", "outcome", "count", "histogram")


def _hook(name: str, by_day: Mapping[date, Runs], first: date, *, with_days: bool = False) -> HookTrend:
    histograms = {day: _merged(histogram for _number, histogram in runs.values()) for day, runs in by_day.items()}
    whole = _merged(histograms.values())
    p50 = {day: quantile(histogram, 0.5) or 0.0 for day, histogram in histograms.items()}
    p95 = {day: quantile(histogram, 0.95) or 0.0 for day, histogram in histograms.items()}
    slowest = max(p95, key=lambda day: (p95[day], day))
    highest = p95[slowest] or 1.0

    def bars(heights: Mapping[date, float]) -> str:
        return "".join(_bar(_x(day, first), 100 - 100 * heights[day] / highest, 100) for day in sorted(heights))

    bad = [day for day, runs in sorted(by_day.items()) if any(runs.get(word, (0,))[0] for word in BAD)]
    shapes = (
        Shape("p95", bars(p95)),
        Shape("p50", bars(p50)),
        Shape("bad", "".join(_bar(_x(day, first), 0, 2 * LEAST) for day in bad)),
    )
    totals: Counter[str] = Counter()
    for runs in by_day.values():
        totals.update({outcome: number for outcome, (number, _histogram) in runs.items()})
    words = _("p95 by day: at most %(most)s, on %(day)s; at last %(last)s. Failed or timed out on %(bad)d days.") % {
        "most": seconds_text(p95[slowest]),
        "day": slowest,
        "last": seconds_text(p95[max(p95)]),
        "bad": len(bad),
    }
    return HookTrend(
        name=name,
        shown=one_line(name),
        runs=totals.total(),
        p50=seconds_text(quantile(whole, 0.5)),
        p95=seconds_text(quantile(whole, 0.95)),
        failed=totals[HookOutcome.FAILED],
        timed_out=totals[HookOutcome.TIMED_OUT],
        shapes=shapes,
        words=words,
        days=tuple(_hook_day(day, by_day[day], p50[day], p95[day]) for day in sorted(by_day)) if with_days else (),
    )


def _hook_day(day: date, runs: Runs, p50: float, p95: float) -> HookDay:
    times = {outcome: number for outcome, (number, _histogram) in runs.items()}
    failed, timed_out = (times.get(word, 0) for word in BAD)
    return HookDay(f"{day}", sum(times.values()), seconds_text(p50), seconds_text(p95), failed, timed_out)


def _merged(histograms: Iterable[list[int]]) -> list[int]:
    """The sum of many histograms; those that were never written are empty."""
    return list(map(sum, zip(*filter(None, histograms), strict=True)))


# -- pictures ----------------------------------------------------------------------------------------------------------


def _x(day: date, first: date) -> int:
    return SLOT * (day - first).days


def _bar(x: int, top: float, bottom: float) -> str:
    return f"M{x + 1} {bottom:.4g}V{top:.4g}h{BAR}V{bottom:.4g}z"
