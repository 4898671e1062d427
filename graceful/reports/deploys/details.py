"""Reads the jobs and hooks of a deploy's shutdowns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db.models import Count, Max, Q, Sum

from graceful.core.outcome import INTERRUPTED
from graceful.core.phases import HookOutcome
from graceful.models import ReportedHook, ReportedJob
from graceful.reports.deploys.projection import PART
from graceful.reports.deploys.records import HookRun, HookTotal, JobEnd, Material, Member
from graceful.reports.rows import read_time_or_none, stored_time

MOST_JOBS = 200
MOST_LONGEST = 10
MOST_HOOKS = 50
MOST_RUNS = 2000
SINGLE_BARS = 60
"""Up to so many workers have a bar of their own in the picture, with their hooks."""
JOB_FIELDS = (
    *("report_id", "report__worker", "job_id", "function", "queue", "outcome", "seconds", "interruptions", "stack"),
    *("started_at", "report__drained_at", "report__ended_at", "progress_done", "progress_total"),
    *("again_at", "again_worker", "again_release", "again_outcome", "again_ended_at"),
)


def with_details(material: Material) -> Material:
    """With the jobs and hooks of its shutdowns: four queries more."""
    if not material.ended:
        return material
    first, last = material.ended[0].happened_at, material.ended[-1].happened_at
    within = Q(
        report__release=material.release,
        report__happened_at__range=(stored_time(first), stored_time(last)),
        report__reason__in=[each.value for each in PART],
    )
    jobs = ReportedJob.objects.filter(within)
    lost = jobs.filter(outcome__in=[each.value for each in INTERRUPTED]).order_by("report__happened_at", "id")
    longest = jobs.filter(seconds__isnull=False).order_by("-seconds", "id")
    return replace(
        material,
        jobs=dict(jobs.values_list("outcome").annotate(Count("id"))),
        interrupted=tuple(_job(row) for row in lost.values_list(*JOB_FIELDS)[:MOST_JOBS]),
        longest=tuple(_job(row) for row in longest.values_list(*JOB_FIELDS)[:MOST_LONGEST]),
        hooks=_hook_totals(within),
        runs=_hook_runs(material.ended) if len(material.ended) <= SINGLE_BARS else (),
    )


def _job(row: Sequence[Any]) -> JobEnd:
    values = dict(zip(JOB_FIELDS, row, strict=True))
    drained, ended = values.pop("report__drained_at"), values.pop("report__ended_at")
    for name in ("started_at", "again_at", "again_ended_at"):
        values[name] = read_time_or_none(values[name])
    return JobEnd(
        report=values.pop("report_id"),
        worker=values.pop("report__worker"),
        id=values.pop("job_id"),
        stopped_at=read_time_or_none(drained or ended),
        seconds=finite(values.pop("seconds")),
        **values,
    )


def _hook_totals(within: Q) -> tuple[HookTotal, ...]:
    rows = (
        ReportedHook.objects.filter(within)
        .values_list("name", "outcome")
        .annotate(Count("id"), Sum("seconds"), Max("seconds"))
    )
    totals: dict[str, HookTotal] = {}
    for name, outcome, count, seconds, slowest in rows:
        old = totals.get(name, HookTotal(name, 0, 0, 0, 0, 0.0, 0.0))
        totals[name] = HookTotal(
            name,
            old.runs + count,
            old.failed + count * (outcome == HookOutcome.FAILED),
            old.timed_out + count * (outcome == HookOutcome.TIMED_OUT),
            old.skipped + count * (outcome == HookOutcome.SKIPPED),
            old.seconds + (finite(seconds) or 0.0),
            max(old.slowest, finite(slowest) or 0.0),
        )
    return tuple(sorted(totals.values(), key=lambda each: (-each.slowest, each.name))[:MOST_HOOKS])


def _hook_runs(members: Sequence[Member]) -> tuple[HookRun, ...]:
    rows = (
        ReportedHook.objects.filter(report_id__in=[each.id for each in members])
        .exclude(outcome=HookOutcome.SKIPPED)
        .order_by("report_id", "place")
        .values_list("report_id", "name", "outcome", "seconds")
    )
    return tuple(HookRun(*row[:3], finite(row[3]) or 0.0) for row in rows[:MOST_RUNS])


def finite(number: float | None) -> float | None:
    return number if number is None or math.isfinite(number) else None
