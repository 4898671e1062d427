"""Sums over all roll-ups, as counters need them: they never fall, since old days are folded and never removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from django.db import close_old_connections, router, transaction
from django.db.models import Model, Sum

from graceful.core.histogram import added, empty
from graceful.models import HookRollup, ShutdownRollup

ATTEMPTS = 3


@dataclass
class Histogram:
    """Durations: counts of the buckets of :data:`graceful.core.histogram.BOUNDS`, and their sum in seconds."""

    counts: list[int] = field(default_factory=empty)
    seconds: float = 0.0

    def add(self, counts: Sequence[int], seconds: float) -> None:
        self.counts = added(self.counts, counts)
        self.seconds += seconds


@dataclass
class Sums:
    """What all roll-ups of some days add up to.

    Args:
        shutdowns: number by outcome and reason.
        jobs_interrupted: jobs that shutdowns interrupted.
        drain, hooks, total: how long the phases took.
        runs: runs of exit hooks by name and outcome.
        hook_seconds: how long the hooks took, by name.
        newest: the last day on which a hook ran, by name.
    """

    shutdowns: dict[tuple[str, str], int] = field(default_factory=dict)
    jobs_interrupted: int = 0
    drain: Histogram = field(default_factory=Histogram)
    hooks: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    hook_seconds: dict[str, Histogram] = field(default_factory=dict)
    newest: dict[str, date] = field(default_factory=dict)

    def add_shutdowns(self, row: Any) -> None:
        """Add one row of :class:`graceful.models.ShutdownRollup`."""
        key = (row.outcome, row.reason)
        self.shutdowns[key] = self.shutdowns.get(key, 0) + row.count
        self.jobs_interrupted += row.jobs_interrupted
        self.drain.add(row.drain_histogram, row.drain_seconds)
        self.hooks.add(row.hooks_histogram, row.hooks_seconds)
        self.total.add(row.total_histogram, row.total_seconds)

    def add_hook(self, row: Any) -> None:
        """Add one row of :class:`graceful.models.HookRollup`."""
        key = (row.name, row.outcome)
        self.runs[key] = self.runs.get(key, 0) + row.count
        self.hook_seconds.setdefault(row.name, Histogram()).add(row.histogram, row.seconds)
        self.newest[row.name] = max(row.day, self.newest.get(row.name, row.day))

    def add(self, other: Sums) -> None:
        for outcome_and_reason, count in other.shutdowns.items():
            self.shutdowns[outcome_and_reason] = self.shutdowns.get(outcome_and_reason, 0) + count
        self.jobs_interrupted += other.jobs_interrupted
        for mine, its in ((self.drain, other.drain), (self.hooks, other.hooks), (self.total, other.total)):
            mine.add(its.counts, its.seconds)
        for name_and_outcome, count in other.runs.items():
            self.runs[name_and_outcome] = self.runs.get(name_and_outcome, 0) + count
        for name, seconds in other.hook_seconds.items():
            self.hook_seconds.setdefault(name, Histogram()).add(seconds.counts, seconds.seconds)
            self.newest[name] = max(other.newest[name], self.newest.get(name, other.newest[name]))


@dataclass
class _Day:
    shutdowns: int
    hooks: int
    sums: Sums = field(default_factory=Sums)


class CachedSums:
    """The sums, of which only the days that have changed are read again.

    What is counted on a day only grows until the day is folded into another, so its count tells whether it has changed.
    """

    def __init__(self) -> None:
        self._days: dict[date, _Day] = {}

    def read(self) -> Sums:
        """The sums as they are now.

        Raises:
            django.db.Error: the database is unreachable, or its tables are missing.
        """
        # Where the project serves metrics outside of requests nobody else drops a broken connection.
        close_old_connections()
        try:
            alias = router.db_for_read(ShutdownRollup)
            with transaction.atomic(using=alias):
                self._refresh(alias)
        finally:
            close_old_connections()
        sums = Sums()
        for day in list(self._days.values()):
            sums.add(day.sums)
        return sums

    def _refresh(self, alias: str) -> None:
        now = _counts(alias)
        for _ in range(ATTEMPTS):
            days = {day: known for day, known in self._days.items() if now.get(day) == (known.shutdowns, known.hooks)}
            changed = {day: _Day(*counts) for day, counts in now.items() if day not in days}
            for shutdowns in _of_days(ShutdownRollup, changed, alias):
                changed[shutdowns.day].sums.add_shutdowns(shutdowns)
            for hook in _of_days(HookRollup, changed, alias):
                changed[hook.day].sums.add_hook(hook)
            before, now = now, _counts(alias)
            if now == before:
                # All of one instant: a day that is just being folded is counted neither twice nor not at all.
                self._days = {**days, **changed}
                return


def _counts(alias: str) -> dict[date, tuple[int, int]]:
    shutdowns, hooks = (
        dict(model._default_manager.using(alias).order_by().values_list("day").annotate(Sum("count")))
        for model in (ShutdownRollup, HookRollup)
    )
    return {day: (shutdowns.get(day, 0), hooks.get(day, 0)) for day in shutdowns.keys() | hooks.keys()}


def _of_days(model: type[Model], days: Iterable[date], alias: str) -> Iterable[Any]:
    return model._default_manager.using(alias).filter(day__in=list(days)).iterator() if days else ()
