"""Conversion between a report's record and its rows in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from django.conf import settings
from django.utils import timezone

from graceful.core import records, report_json
from graceful.core.outcome import WENT_WRONG
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.text import cut
from graceful.models import NAME_LENGTH, WORD_LENGTH, ReportedHook, ReportedJob, ReportKeyword, ShutdownReport


@dataclass(frozen=True, slots=True)
class ReportRows:
    """One report as rows that are not saved yet."""

    record: records.ShutdownReport
    """What will be read from them again."""
    report: ShutdownReport
    hooks: tuple[ReportedHook, ...]
    jobs: tuple[ReportedJob, ...]
    keywords: tuple[ReportKeyword, ...]


def rows_of(record: records.ShutdownReport) -> ReportRows:
    """The rows of a record, not saved.

    Raises:
        UnreadableReport: the record holds what its own JSON form cannot hold.
    """
    # The round trip through JSON removes what a database refuses: NUL, lone surrogates, numbers that are too large.
    clean = report_json.load(report_json.dump(record))
    report = ShutdownReport(
        id=clean.id,
        happened_at=stored_time(clean.requested_at or clean.ended_at or clean.started_at),
        worker=cut(clean.worker, NAME_LENGTH),
        hostname=cut(clean.hostname, NAME_LENGTH),
        pid=clean.pid,
        release=cut(clean.release, NAME_LENGTH),
        queues=list(clean.queues),
        worker_class=clean.worker_class,
        reason=clean.reason and clean.reason.stored,
        recycled=clean.reason and clean.reason.recycled,
        signal=None if clean.signal is None else clean.signal[:WORD_LENGTH],
        outcome=clean.outcome,
        exit_code=clean.exit_code,
        phase=clean.phase,
        started_at=stored_time(clean.started_at),
        requested_at=_stored_or_none(clean.requested_at),
        drained_at=_stored_or_none(clean.drained_at),
        ended_at=_stored_or_none(clean.ended_at),
        drain_seconds=clean.seconds.drain,
        hooks_seconds=clean.seconds.hooks,
        total_seconds=clean.seconds.total,
        jobs_finished=clean.jobs.finished,
        jobs_failed=clean.jobs.failed,
        hooks_ok=sum(hook.outcome is HookOutcome.OK for hook in clean.hooks),
        hooks_total=sum(hook.outcome is not HookOutcome.SKIPPED for hook in clean.hooks),
        notes=clean.notes,
        grace_period=clean.grace.period,
        hooks_timeout=clean.grace.hooks,
        interrupt_timeout=clean.grace.interrupt,
        peak_bytes=clean.peak.worker,
        horse_peak_bytes=clean.peak.horse,
    )
    return ReportRows(
        record=clean,
        report=report,
        hooks=tuple(_hook_row(hook, report, place) for place, hook in enumerate(clean.hooks)),
        jobs=tuple(_job_row(job, report, place) for place, job in enumerate(clean.jobs.in_flight)),
        keywords=keywords_of(report, (hook.name for hook in clean.hooks if hook.outcome in WENT_WRONG)),
    )


def keywords_of(report: ShutdownReport, failed_hooks: Iterable[str]) -> tuple[ReportKeyword, ...]:
    """The names by which the list finds a report, not saved."""
    names = [(ReportKeyword.Kind.QUEUE, name) for name in report.queues]
    names += [(ReportKeyword.Kind.FAILED_HOOK, name) for name in failed_hooks]
    unique = dict.fromkeys((kind, cut(name, NAME_LENGTH)) for kind, name in names)
    return tuple(
        ReportKeyword(report=report, kind=kind, value=value, happened_at=report.happened_at, outcome=report.outcome)
        for kind, value in unique
    )


def record_of(row: ShutdownReport) -> records.ShutdownReport:
    """The record of a row; reads its hooks and jobs, unless they were prefetched."""
    return records.ShutdownReport(
        id=row.id,
        worker=row.worker,
        hostname=row.hostname,
        pid=row.pid,
        release=row.release,
        queues=tuple(row.queues),
        worker_class=row.worker_class,
        reason=report_json.restored(None if row.reason is None else Reason(row.reason), row.recycled),
        signal=row.signal,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        exit_code=row.exit_code,
        phase=Phase(row.phase),
        started_at=read_time(row.started_at),
        requested_at=read_time_or_none(row.requested_at),
        drained_at=read_time_or_none(row.drained_at),
        ended_at=read_time_or_none(row.ended_at),
        seconds=records.Spans(drain=row.drain_seconds, hooks=row.hooks_seconds, total=row.total_seconds),
        jobs=records.JobTally(
            finished=row.jobs_finished,
            failed=row.jobs_failed,
            in_flight=tuple(_job_of(job) for job in _in_place(row.jobs.all())),
        ),
        hooks=tuple(_hook_of(hook) for hook in _in_place(row.hooks.all())),
        notes=row.notes,
        grace=records.Grace(row.grace_period, row.hooks_timeout, row.interrupt_timeout),
        peak=records.PeakMemory(row.peak_bytes, row.horse_peak_bytes),
    )


def stored_time(moment: datetime) -> datetime:
    """As the database takes it: with USE_TZ off Django stores naive times, in the project's own time zone."""
    return moment if settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())


def shifted(moment: datetime, seconds: float) -> datetime:
    """``moment`` later by so many seconds; itself where the calendar ends."""
    try:
        return moment + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return moment


def day_of(moment: datetime) -> date:
    """The day, in UTC, of a time as the database gives it."""
    return read_time(moment).date()


def local_time(moment: datetime) -> datetime:
    """A time in the current time zone; at the ends of the calendar, where that overflows, the time as it is."""
    try:
        return timezone.localtime(moment) if timezone.is_aware(moment) else moment
    except (OverflowError, ValueError):
        return moment


def _hook_row(hook: records.HookResult, report: ShutdownReport, place: int) -> ReportedHook:
    return ReportedHook(report=report, place=place, **hook._asdict())


def _hook_of(row: ReportedHook) -> records.HookResult:
    values = {name: getattr(row, name) for name in records.HookResult._fields}
    return records.HookResult(**{**values, "outcome": HookOutcome(row.outcome)})


def _job_row(job: records.InFlightJob, report: ShutdownReport, place: int) -> ReportedJob:
    values = {**job._asdict(), "started_at": _stored_or_none(job.started_at)}
    return ReportedJob(report=report, place=place, job_id=cut(values.pop("id"), NAME_LENGTH), **values)


def _job_of(row: ReportedJob) -> records.InFlightJob:
    values = {name: getattr(row, name) for name in records.InFlightJob._fields}
    return records.InFlightJob(
        **{
            **values,
            "id": row.job_id,
            "outcome": JobOutcome(row.outcome),
            "started_at": read_time_or_none(row.started_at),
        }
    )


Row = TypeVar("Row", ReportedHook, ReportedJob)


def _in_place(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.place)


def _stored_or_none(moment: datetime | None) -> datetime | None:
    return None if moment is None else stored_time(moment)


def read_time(moment: datetime) -> datetime:
    """A time from the database, in UTC."""
    if moment.tzinfo is UTC:  # As Django reads it with USE_TZ: a deploy has thousands.
        return moment
    aware = timezone.make_aware(moment, timezone.get_default_timezone()) if timezone.is_naive(moment) else moment
    try:
        return aware.astimezone(UTC)
    except OverflowError:  # At an end of the calendar.
        return moment.replace(tzinfo=UTC)


def read_time_or_none(moment: datetime | None) -> datetime | None:
    return None if moment is None else read_time(moment)
