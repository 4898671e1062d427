"""Roll-ups: shutdowns and hook runs added up by day, which trends and metrics read instead of the reports.

A report is counted in the transaction that marks it (``rolled_up``), so it is counted once, however many processes
try at once. What is added up only grows: days older than the reports are kept are folded into one row without a day
instead of being deleted, so that sums over all rows stay monotonic, as a counter of Prometheus has to be.

An amended report (:func:`graceful.core.post_mortem.amended`) keeps its mark and is not counted again; that one of its
jobs, counted as interrupted, has ended by itself after all is not corrected.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from django.db import DatabaseError, OperationalError, connections, router, transaction

from graceful.core.deadline import Deadline
from graceful.core.histogram import added, bucket_of, empty
from graceful.core.outcome import INTERRUPTED
from graceful.core.phases import HookOutcome
from graceful.core.records import utc_now
from graceful.core.text import cut
from graceful.models import NAME_LENGTH, HookRollup, ReportedHook, ReportedJob, ShutdownReport, ShutdownRollup
from graceful.reports import log
from graceful.reports.archive import needs_migrate
from graceful.reports.rows import day_of, stored_time

BATCH = 200
"""Reports in one transaction: few enough that nobody waits long for SQLite's write lock."""
FOLDED_ROWS = 500
MOST_NAMES = 100
"""Distinct releases, and distinct hooks, of one day; the others of that day are counted as ``OTHER``."""
OTHER = "(other)"
MOST_UNCOUNTED = 1_000
NO_DAY = date(1970, 1, 1)
"""The day of what is older than the reports that are kept."""
ATTEMPTS = 5

Key = tuple[Any, ...]
Sums = dict[str, Any]

logger = logging.getLogger("graceful.reports")


class _Table(NamedTuple):
    """A table of roll-ups: what identifies a row (the day first, then a name that is bounded), and what is added up."""

    model: Any
    key: tuple[str, ...]
    numbers: tuple[str, ...]
    histograms: tuple[str, ...]

    @property
    def sums(self) -> tuple[str, ...]:
        return (*self.numbers, *self.histograms)

    def summed(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> Sums:
        numbers = {name: one[name] + other[name] for name in self.numbers}
        return {**numbers, **{name: added(one[name], other[name]) for name in self.histograms}}


SHUTDOWNS = _Table(
    ShutdownRollup,
    ("day", "release", "outcome", "reason"),
    (
        "count",
        "jobs_finished",
        "jobs_failed",
        "jobs_interrupted",
        "drain_seconds",
        "hooks_seconds",
        "total_seconds",
    ),
    ("drain_histogram", "hooks_histogram", "total_histogram"),
)
HOOKS = _Table(HookRollup, ("day", "name", "outcome"), ("count", "seconds"), ("histogram",))


def roll_up(seconds: float, most: int | None = None) -> int:
    """Count sealed reports that are not counted yet. Never raises; runs over the caller's own database connection.

    Args:
        seconds: no transaction begins after so many.
        most: count no more reports than that.

    Returns:
        How many reports were counted.
    """
    deadline = Deadline.after(seconds)
    counted = 0
    try:
        alias = router.db_for_write(ShutdownReport)
        while not deadline.expired and (most is None or counted < most):
            with transaction.atomic(using=alias):
                found = _roll_up_batch(alias, BATCH if most is None else min(BATCH, most - counted))
            if not found:
                break
            counted += found
    except DatabaseError as error:
        _log(error)
    return counted


def uncounted() -> int:
    """How many reports wait to be counted, at most ``MOST_UNCOUNTED``.

    Raises:
        django.db.DatabaseError: the database is unreachable, or its tables are missing.
    """
    return ShutdownReport.objects.filter(rolled_up=False, outcome__isnull=False).order_by()[:MOST_UNCOUNTED].count()


def fold_old(keep: timedelta) -> int:
    """Add days older than ``keep`` up in one row each of an outcome and reason, or hook and outcome, without a day.

    Never raises; runs over the caller's own database connection.

    Returns:
        How many rows were folded.
    """
    folded = 0
    try:
        alias = router.db_for_write(ShutdownRollup)
        before = (utc_now() - keep).date()
        for table in (SHUTDOWNS, HOOKS):
            while found := _fold_batch(table, before, alias):
                folded += found
    except (DatabaseError, OverflowError) as error:
        _log(error)
    return folded


def _log(error: Exception) -> None:
    # Missing tables are told by the archive, at the same occasions.
    if not needs_migrate(error):
        logger.warning(log.NOT_ROLLED_UP, error)


def _roll_up_batch(alias: str, size: int) -> int:
    skip_locked = _locks_rows(alias)
    waiting = ShutdownReport.objects.using(alias).filter(rolled_up=False, outcome__isnull=False)
    first = list(waiting.order_by("pk").values_list("happened_at", flat=True)[:size])
    if not first:
        return 0
    if len(first) == size:
        # A backlog. Of one day at a time: then few rows of the roll-ups are read, locked and written.
        day = day_of(first[0])
        waiting = waiting.filter(happened_at__gte=_midnight(day), happened_at__lt=_midnight(day + timedelta(days=1)))
        waiting = waiting.order_by("happened_at", "pk")
    else:
        waiting = waiting.order_by("pk")
    if skip_locked:
        waiting = waiting.select_for_update(skip_locked=True)
    reports = {row["pk"]: row for row in waiting.values("pk", *_COLUMNS)[:size]}
    if not reports:
        return 0
    _add(SHUTDOWNS, _shutdowns(reports, alias), alias)
    _add(HOOKS, _hooks(reports, alias), alias)
    return ShutdownReport.objects.using(alias).filter(pk__in=list(reports)).update(rolled_up=True)


_COLUMNS = (
    *("happened_at", "release", "outcome", "reason", "recycled", "jobs_finished", "jobs_failed"),
    *("drain_seconds", "hooks_seconds", "total_seconds"),
)


def _locks_rows(alias: str) -> bool:
    """Whether this database locks single rows; one that does not (SQLite) is locked as a whole, from here on."""
    if connections[alias].features.has_select_for_update_skip_locked:
        return True
    # Written before anything is read: in SQLite a transaction that has read cannot always be upgraded to a write.
    ShutdownReport.objects.using(alias).filter(pk="").update(rolled_up=True)
    return False


def _midnight(day: date) -> datetime:
    return stored_time(datetime.combine(day, time(), UTC))


def _shutdowns(reports: Mapping[str, Mapping[str, Any]], alias: str) -> dict[Key, Sums]:
    jobs = ReportedJob.objects.using(alias).filter(report__in=list(reports), outcome__in=INTERRUPTED)
    interrupted: dict[str, int] = {}
    for report_id in jobs.values_list("report_id", flat=True):
        interrupted[report_id] = interrupted.get(report_id, 0) + 1
    found: dict[Key, Sums] = {}
    for report_id, row in reports.items():
        key = (day_of(row["happened_at"]), row["release"], row["outcome"], row["recycled"] or row["reason"] or "")
        sums: Sums = {
            "count": 1,
            "jobs_finished": row["jobs_finished"],
            "jobs_failed": row["jobs_failed"],
            "jobs_interrupted": interrupted.get(report_id, 0),
        }
        for span in ("drain", "hooks", "total"):
            seconds = row[f"{span}_seconds"]
            sums[f"{span}_seconds"] = seconds or 0.0
            sums[f"{span}_histogram"] = _histogram(seconds)
        found[key] = SHUTDOWNS.summed(found[key], sums) if key in found else sums
    return found


def _hooks(reports: Mapping[str, Mapping[str, Any]], alias: str) -> dict[Key, Sums]:
    """Runs of hooks; a skipped hook has not run."""
    rows = ReportedHook.objects.using(alias).filter(report__in=list(reports)).exclude(outcome=HookOutcome.SKIPPED)
    found: dict[Key, Sums] = {}
    for report_id, name, outcome, seconds in rows.values_list("report_id", "name", "outcome", "seconds"):
        key = (day_of(reports[report_id]["happened_at"]), cut(name, NAME_LENGTH), outcome)
        sums: Sums = {"count": 1, "seconds": seconds, "histogram": _histogram(seconds)}
        found[key] = HOOKS.summed(found[key], sums) if key in found else sums
    return found


def _histogram(seconds: float | None) -> list[int]:
    counts = empty()
    if seconds is not None:
        counts[bucket_of(seconds)] = 1
    return counts


def _add(table: _Table, increments: Mapping[Key, Sums], alias: str) -> None:
    """Add to the stored rows, within the caller's transaction."""
    if not increments:
        return
    objects = table.model.objects.using(alias)
    days = sorted({key[0] for key in increments})
    increments = _bounded(table, increments, objects.filter(day__in=days))
    stored = _locked(table, increments, days, alias)
    rows = [
        table.model(**dict(zip(table.key, key, strict=True)), **table.summed(stored[key], increments[key]))
        for key in increments
    ]
    # By their unique key; a database that cannot name it (MySQL) finds it by itself.
    names_key = connections[alias].features.supports_update_conflicts_with_target
    objects.bulk_create(
        rows, update_conflicts=True, update_fields=table.sums, unique_fields=table.key if names_key else None
    )


def _bounded(table: _Table, increments: Mapping[Key, Sums], stored: Any) -> dict[Key, Sums]:
    """With what is beyond ``MOST_NAMES`` of its day under ``OTHER``. (Two processes at once may exceed it a little.)"""
    name = table.key[1]
    known: dict[date, set[str]] = {}
    for day, label in stored.order_by().values_list("day", name).distinct():
        known.setdefault(day, set()).add(label)
    found: dict[Key, Sums] = {}
    for key in sorted(increments):
        day, label, *rest = key
        of_day = known.setdefault(day, set())
        if len(of_day) < MOST_NAMES:
            of_day.add(label)
        bounded = (day, label if label in of_day else OTHER, *rest)
        sums = increments[key]
        found[bounded] = table.summed(found[bounded], sums) if bounded in found else sums
    return found


def _locked(table: _Table, keys: Iterable[Key], days: list[date], alias: str) -> dict[Key, Sums]:
    """What is stored under these keys, zeros where nothing is yet; each row stays locked until the transaction ends.

    All rows of a day are locked in the order of their keys, and missing ones made in that order before, so that two
    processes never wait for each other.
    """
    objects = table.model.objects.using(alias)
    stored: dict[Key, Sums] = {}
    for _ in range(ATTEMPTS):
        missing = sorted(set(keys) - stored.keys())
        if stored and not missing:
            return stored
        objects.bulk_create(
            [table.model(**dict(zip(table.key, key, strict=True))) for key in missing], ignore_conflicts=True
        )
        rows = objects.filter(day__in=days).select_for_update().order_by(*table.key)
        stored = {tuple(row[name] for name in table.key): row for row in rows.values(*table.key, *table.sums)}
    # A row made or found above is only gone because it is being folded.
    raise OperationalError("roll-ups are being folded by another process")


def _fold_batch(table: _Table, before: date, alias: str) -> int:
    with transaction.atomic(using=alias):
        skip_locked = _locks_rows(alias)
        old = table.model.objects.using(alias).filter(day__lt=before, day__gt=NO_DAY).order_by(*table.key)
        if skip_locked:
            old = old.select_for_update(skip_locked=True)
        rows = list(old.values("pk", *table.key, *table.sums)[:FOLDED_ROWS])
        found: dict[Key, Sums] = {}
        for row in rows:
            # Releases come and go; hooks stay apart.
            label = "" if table is SHUTDOWNS else row["name"]
            key = (NO_DAY, label, *(row[name] for name in table.key[2:]))
            sums = {name: row[name] for name in table.sums}
            found[key] = table.summed(found[key], sums) if key in found else sums
        _add(table, found, alias)
        table.model.objects.using(alias).filter(pk__in=[row["pk"] for row in rows]).delete()
    return len(rows)
