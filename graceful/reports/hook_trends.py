"""Each exit hook over time, from the roll-ups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db.models import Q, Sum
from django.utils.translation import ngettext

from graceful.core.histogram import quantile
from graceful.core.outcome import WENT_WRONG
from graceful.core.phases import HookOutcome
from graceful.core.text import one_line
from graceful.models import HookRollup
from graceful.reports.day_bars import LEAST, Shape, bar, x_of
from graceful.reports.text import quantile_text

MOST_HOOKS = 25
Runs = dict[str, tuple[int, list[int]]]
"""By outcome: how often, and the histogram."""


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


def hook_trends(first: date, last: date) -> tuple[tuple[HookTrend, ...], bool]:
    """The hooks that failed or timed out most first, then those that ran most; and whether there are more."""
    rollups = HookRollup.objects.filter(day__gte=first, day__lte=last).order_by()
    worst = list(
        rollups.values("name")
        .annotate(runs=Sum("count"), bad=Sum("count", filter=Q(outcome__in=WENT_WRONG), default=0))
        .order_by("-bad", "-runs", "name")
        .values_list("name", flat=True)[: MOST_HOOKS + 1]
    )
    names = worst[:MOST_HOOKS]
    found: dict[str, dict[date, Runs]] = {name: {} for name in names}
    for row in _rows(rollups.filter(name__in=names)):
        found[row["name"]].setdefault(row["day"], {})[row["outcome"]] = (row["count"], row["histogram"])
    # A hook of which nothing is left has been folded meanwhile.
    return tuple(_hook(name, found[name], first) for name in names if found[name]), len(worst) > MOST_HOOKS


def hook_trend(name: str, first: date, last: date) -> HookTrend | None:
    """One hook day by day; None if it did not run."""
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
        return "".join(bar(x_of(day, first), 100 - 100 * heights[day] / highest, 100) for day in sorted(heights))

    bad = [day for day, runs in sorted(by_day.items()) if any(runs.get(word, (0,))[0] for word in WENT_WRONG)]
    shapes = (
        Shape("p95", bars(p95)),
        Shape("p50", bars(p50)),
        Shape("bad", "".join(bar(x_of(day, first), 0, 2 * LEAST) for day in bad)),
    )
    totals: Counter[str] = Counter()
    for runs in by_day.values():
        totals.update({outcome: number for outcome, (number, _histogram) in runs.items()})
    words = ngettext(
        "p95 by day: at most %(most)s, on %(day)s; at last %(last)s. Failed or timed out on %(bad)d day.",
        "p95 by day: at most %(most)s, on %(day)s; at last %(last)s. Failed or timed out on %(bad)d days.",
        len(bad),
    ) % {
        "most": quantile_text(p95[slowest]),
        "day": slowest,
        "last": quantile_text(p95[max(p95)]),
        "bad": len(bad),
    }
    return HookTrend(
        name=name,
        shown=one_line(name),
        runs=totals.total(),
        p50=quantile_text(quantile(whole, 0.5)),
        p95=quantile_text(quantile(whole, 0.95)),
        failed=totals[HookOutcome.FAILED],
        timed_out=totals[HookOutcome.TIMED_OUT],
        shapes=shapes,
        words=words,
        days=tuple(_hook_day(day, by_day[day], p50[day], p95[day]) for day in sorted(by_day)) if with_days else (),
    )


def _hook_day(day: date, runs: Runs, p50: float, p95: float) -> HookDay:
    times = {outcome: number for outcome, (number, _histogram) in runs.items()}
    failed, timed_out = (times.get(word, 0) for word in WENT_WRONG)
    return HookDay(f"{day}", sum(times.values()), quantile_text(p50), quantile_text(p95), failed, timed_out)


def _merged(histograms: Iterable[list[int]]) -> list[int]:
    """The sum of many histograms; those that were never written are empty."""
    return list(map(sum, zip(*filter(None, histograms), strict=True)))
