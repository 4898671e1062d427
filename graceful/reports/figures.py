"""The figures that advice stands on, of the newest shutdowns and of the roll-ups: a few queries, each by an index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, Sum

from graceful.conf import settings
from graceful.core.histogram import added, quantile
from graceful.core.phases import HookOutcome, JobOutcome, Reason
from graceful.core.post_mortem import GRACE_OVER
from graceful.core.records import Grace, utc_now
from graceful.models import HookRollup, ReportedJob, ShutdownReport
from graceful.reports.platforms import Platform, platform_of
from graceful.reports.rows import stored_time

NEWEST = 2_000
"""Shutdowns that are looked at, at most."""
NEWEST_JOBS = 500
"""Interrupted jobs that are looked at one by one, at most."""
NEWEST_KILLED = 500
RECENT = 100
"""Of so many of the newest shutdowns the most frequent grace period is the one to judge."""
MOST_HOOKS = 3

CUT_OFF = (JobOutcome.INTERRUPTED, JobOutcome.INTERRUPTION_FAILED, JobOutcome.KILLED, JobOutcome.UNKNOWN)
"""What the shutdown did to jobs that needed more time."""
ENDED = (JobOutcome.FINISHED, JobOutcome.FAILED)


@dataclass(frozen=True, slots=True)
class Need:
    """How long a shutdown would have had to wait for its jobs.

    Args:
        seconds: from the request to the end of its last job.
        at_least: the job was cut off, and nothing tells how much longer it would have taken.
    """

    seconds: float
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class FunctionCost:
    """What interruptions cost the jobs of one function.

    Args:
        function: its dotted name.
        interrupted: how many of its jobs were interrupted or killed without having made progress (``resumable``).
        repeated_seconds: work that those had done before, and had to do again, as far as it is known.
    """

    function: str
    interrupted: int
    repeated_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HookRuns:
    """The runs of one exit hook.

    Args:
        name: its name.
        runs: how often it ran.
        timed_out: how often it timed out.
        allowed: seconds after which it timed out, on average.
        p95: seconds that 95 % of the runs that succeeded did not exceed, or None if none did.
    """

    name: str
    runs: int
    timed_out: int
    allowed: float
    p95: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the shutdowns of a period; those that somebody asked for, unless it says otherwise.

    Args:
        shutdowns: how many.
        since: the first of them.
        until: the last.
        grace: their grace period and its parts.
        needs: of each, how long it would have had to wait for its jobs.
        hooks: of each, the seconds in hooks.
        jobs: how many jobs were in flight and either ended or were cut off.
        interrupted: how many of these were cut off.
        grace_over: workers that were killed, probably because the platform's grace period was over.
        functions: those whose jobs were interrupted, the worst first.
        hook_runs: hooks that timed out, the worst first; of all shutdowns.
        platform: where this process runs.
    """

    shutdowns: int = 0
    since: datetime | None = None
    until: datetime | None = None
    grace: Grace = field(default_factory=Grace)
    needs: tuple[Need, ...] = ()
    hooks: tuple[float, ...] = ()
    jobs: int = 0
    interrupted: int = 0
    grace_over: int = 0
    functions: tuple[FunctionCost, ...] = ()
    hook_runs: tuple[HookRuns, ...] = ()
    platform: Platform = Platform.UNKNOWN


def figures(period: timedelta, using: str | None = None) -> Figures:
    """The figures of the shutdowns of a period that ends now.

    Args:
        period: how far back to look.
        using: alias of the database; None: where reports are read.

    Raises:
        django.db.DatabaseError: the database is unreachable, or its tables are missing.
    """
    since = stored_time(utc_now() - period)
    reports = ShutdownReport.objects.using(using).filter(happened_at__gte=since)
    rows = _newest(reports)
    grace = _grace_in_use(rows)
    rows = [row for row in rows if _grace_of(row) == grace]
    found = Figures(
        grace=_with_settings(grace),
        grace_over=_grace_over(reports),
        hook_runs=_hook_runs(utc_now() - period, using),
        platform=platform_of(os.environ),
    )
    if not rows:
        return found
    newest, oldest = rows[0]["happened_at"], rows[-1]["happened_at"]
    jobs = ReportedJob.objects.using(using).filter(
        report__reason__in=_ASKED_FOR,
        report__happened_at__gte=oldest,
        report__grace_period=grace.period,
        report__hooks_timeout=grace.hooks,
        report__interrupt_timeout=grace.interrupt,
    )
    counts = jobs.aggregate(
        cut_off=Count("pk", filter=Q(outcome__in=CUT_OFF)), ended=Count("pk", filter=Q(outcome__in=ENDED))
    )
    cut_off = list(
        jobs.filter(outcome__in=CUT_OFF).order_by("-report__happened_at").values(*_JOB_COLUMNS)[:NEWEST_JOBS]
    )
    return Figures(
        shutdowns=len(rows),
        since=oldest,
        until=newest,
        grace=found.grace,
        needs=_needs(rows, cut_off),
        hooks=tuple(row["hooks_seconds"] for row in rows if row["hooks_seconds"] is not None),
        jobs=counts["cut_off"] + counts["ended"],
        interrupted=counts["cut_off"],
        grace_over=found.grace_over,
        functions=_functions(cut_off),
        hook_runs=found.hook_runs,
        platform=found.platform,
    )


_ASKED_FOR = [reason for reason in Reason if reason.asked_for]
_COLUMNS = ("id", "happened_at", "drain_seconds", "hooks_seconds")
_GRACE_COLUMNS = ("grace_period", "hooks_timeout", "interrupt_timeout")
_JOB_COLUMNS = (
    *("report_id", "function", "seconds", "interruptions", "started_at", "progress_done", "progress_total"),
    *("again_at", "again_ended_at", "again_outcome", "report__requested_at"),
)


def _newest(reports: Any) -> list[dict[str, Any]]:
    """The newest that somebody asked for, the newest first; read reason by reason, because each has its index."""
    rows: list[dict[str, Any]] = []
    for reason in _ASKED_FOR:
        rows += (
            reports.filter(reason=reason).order_by("-happened_at", "-id").values(*_COLUMNS, *_GRACE_COLUMNS)[:NEWEST]
        )
    return sorted(rows, key=lambda row: row["happened_at"], reverse=True)[:NEWEST]


def _grace_of(row: Mapping[str, Any]) -> Grace:
    return Grace(row["grace_period"], row["hooks_timeout"], row["interrupt_timeout"])


def _grace_in_use(rows: Iterable[Mapping[str, Any]]) -> Grace:
    """What most of the newest workers were configured with: shutdowns with another say nothing of it."""
    recent = Counter(_grace_of(row) for row in list(rows)[:RECENT])
    return recent.most_common(1)[0][0] if recent else Grace()


def _with_settings(grace: Grace) -> Grace:
    """Reports of an earlier version do not say; then these settings are the best guess."""
    if grace.period is not None and grace.hooks is not None and grace.interrupt is not None:
        return grace
    here = settings()
    return Grace(here.timeout, here.hooks_timeout, here.interrupt_timeout)


def _grace_over(reports: Any) -> int:
    killed = reports.filter(reason=Reason.KILLED).order_by("-happened_at", "-id")
    return sum(GRACE_OVER in notes for notes in killed.values_list("notes", flat=True)[:NEWEST_KILLED])


def _needs(rows: Iterable[Mapping[str, Any]], cut_off: Iterable[Mapping[str, Any]]) -> tuple[Need, ...]:
    of_report: dict[str, Need] = {}
    for job in cut_off:
        need, before = _need(job), of_report.get(job["report_id"], Need(0.0))
        of_report[job["report_id"]] = Need(max(need.seconds, before.seconds), need.at_least or before.at_least)
    needs = []
    for row in rows:
        drain = row["drain_seconds"]
        if row["id"] in of_report:
            need = of_report[row["id"]]
            needs.append(Need(max(need.seconds, drain or 0.0), need.at_least))
        elif drain is not None:
            needs.append(Need(drain))
    return tuple(needs)


def _need(job: Mapping[str, Any]) -> Need:
    """How long one job that was cut off would have needed: from its second run, or its progress, if they tell."""
    ran = max(0.0, job["seconds"] or 0.0)
    before = _before(job)
    if job["again_outcome"] == JobOutcome.FINISHED and job["again_at"] and job["again_ended_at"]:
        again = (job["again_ended_at"] - job["again_at"]).total_seconds()
        if job["progress_done"]:
            return Need(ran + max(0.0, again))  # It only did what was left.
        if before is not None:
            return Need(max(ran, again - before))
    done, total = job["progress_done"] or 0, job["progress_total"] or 0
    # An earlier interruption's part of the progress was not made in this run.
    if before is not None and 0 < done <= total and job["interruptions"] <= 1:
        return Need(ran + (before + ran) * (total - done) / done)
    return Need(ran, at_least=True)


def _before(job: Mapping[str, Any]) -> float | None:
    """Seconds that a job had run when the shutdown was requested."""
    if job["started_at"] is None or job["report__requested_at"] is None:
        return None
    before: float = (job["report__requested_at"] - job["started_at"]).total_seconds()
    return max(0.0, before)


def _functions(cut_off: Iterable[Mapping[str, Any]]) -> tuple[FunctionCost, ...]:
    times: Counter[str] = Counter()
    lost: dict[str, float] = {}
    for job in cut_off:
        if not job["progress_done"]:
            name = job["function"]
            times[name] += 1
            before = _before(job)
            lost[name] = lost.get(name, 0.0) + (0.0 if before is None else before + max(0.0, job["seconds"] or 0.0))
    return tuple(FunctionCost(name, number, lost[name]) for name, number in times.most_common())


def _hook_runs(since: datetime, using: str | None) -> tuple[HookRuns, ...]:
    rollups = HookRollup.objects.using(using).filter(day__gte=since.date()).order_by()
    timed_out = Q(outcome=HookOutcome.TIMED_OUT)
    worst = list(
        rollups.values("name")
        .annotate(
            runs=Sum("count"),
            timed_out=Sum("count", filter=timed_out),
            allowed=Sum("seconds", filter=timed_out),
        )
        .filter(timed_out__gt=0)
        .order_by("-timed_out", "name")[:MOST_HOOKS]
    )
    succeeded: dict[str, list[int]] = {}
    ok = rollups.filter(name__in=[row["name"] for row in worst], outcome=HookOutcome.OK)
    for name, histogram in ok.values_list("name", "histogram"):
        succeeded[name] = added(succeeded.get(name, []), histogram)
    return tuple(
        HookRuns(
            name=row["name"],
            runs=row["runs"],
            timed_out=row["timed_out"],
            allowed=row["allowed"] / row["timed_out"],
            p95=_no_more_than(row["allowed"] / row["timed_out"], quantile(succeeded.get(row["name"], []), 0.95)),
        )
        for row in worst
    )


def _no_more_than(allowed: float, estimate: float | None) -> float | None:
    """An estimate from a histogram may exceed what it estimates: no run that succeeded took longer than allowed."""
    return None if estimate is None else min(allowed, estimate)
