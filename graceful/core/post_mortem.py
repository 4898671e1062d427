"""Closing the report of a worker that died without a word: what can be said of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from graceful.core.phases import JobOutcome, Outcome, Reason
from graceful.core.records import InFlightJob, JobTally, ShutdownReport, Spans
from graceful.core.report_json import EARLIEST, LATEST

SHORTEST_GRACE_SECONDS = 8.0
"""Platforms wait at least 10 s before SIGKILL (Docker); a death earlier after the signal has another cause."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a reaper found.

    Args:
        found_at: when it found the worker dead.
        found_by: who it was: ``"worker w1"``.
        last_beat: seconds since the epoch of the dead worker's last sign of life, by the server's clock.
        job: the job that it held, with what became of it now.
        oom_killed: the kernel has killed a process of its control group for want of memory since its start.
    """

    found_at: datetime
    found_by: str
    last_beat: float | None
    job: InFlightJob | None
    oom_killed: bool


def closed(report: ShutdownReport, findings: Findings) -> ShutdownReport:
    """The sealed report of a dead worker; its phase stays the last one that it reached."""
    beat = _moment(findings.last_beat)
    notes = [report.notes] if report.notes else []
    if beat is not None:
        notes.append(f"last heartbeat {beat.isoformat(timespec='seconds')}")
    if findings.oom_killed:
        notes.append("probably out of memory: the kernel killed a process of its control group")
    elif _grace_over(report, beat or findings.found_at):
        notes.append("probably killed because the platform's grace period was over")
    notes.append(f"closed by {findings.found_by}")
    return replace(
        report,
        reason=Reason.KILLED,
        outcome=Outcome.KILLED,
        exit_code=None,
        ended_at=max([beat, *_seen(report)]) if beat else findings.found_at,
        seconds=replace(report.seconds, total=None) if report.seconds else Spans(),
        jobs=_jobs(report.jobs, findings.job),
        notes="; ".join(notes),
    )


def amended(report: ShutdownReport, job: InFlightJob | None) -> ShutdownReport:
    """A sealed report whose worker left ``job`` in its hands, with what became of it afterwards."""
    return report if job is None else replace(report, jobs=_jobs(report.jobs, job))


def knows_more(report: ShutdownReport, stored: ShutdownReport) -> bool:
    """Whether a report is the stored one, but for knowing what became of a job of which that one does not."""

    def unknown(each: ShutdownReport) -> int:
        return sum(job.outcome is JobOutcome.UNKNOWN for job in each.jobs.in_flight)

    return replace(report, jobs=stored.jobs) == stored and unknown(report) < unknown(stored)


def _moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time; a score that is no clock's says nothing."""
    if seconds is None or not EARLIEST.timestamp() <= seconds < LATEST.timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _seen(report: ShutdownReport) -> list[datetime]:
    """When it was certainly alive; its beat is known to the second only."""
    return [at for at in (report.started_at, report.requested_at, report.drained_at) if at is not None]


def _grace_over(report: ShutdownReport, last_seen: datetime) -> bool:
    if report.requested_at is None:
        return False
    return (last_seen - report.requested_at).total_seconds() >= SHORTEST_GRACE_SECONDS


def _jobs(tally: JobTally, job: InFlightJob | None) -> JobTally:
    """With what became of ``job``; one that had come to its own end counts only if the shutdown had met it."""
    known = tuple(_told(each, job) for each in tally.in_flight)
    if job is None:
        return replace(tally, in_flight=known)
    finished, failed = job.outcome is JobOutcome.FINISHED, job.outcome is JobOutcome.FAILED
    before = [each.outcome for each in tally.in_flight if each.id == job.id]
    if not before and not finished and not failed:
        known = (*known, job)
    # A job that turns out to have come to its own end was not counted yet.
    counts = before and before[0] in (JobOutcome.RUNNING, JobOutcome.UNKNOWN)
    return replace(
        tally,
        finished=tally.finished + bool(counts and finished),
        failed=tally.failed + bool(counts and failed),
        in_flight=known,
    )


def _told(each: InFlightJob, job: InFlightJob | None) -> InFlightJob:
    if job is not None and each.id == job.id:
        return replace(each, outcome=job.outcome, interruptions=job.interruptions)
    return replace(each, outcome=JobOutcome.UNKNOWN) if each.outcome is JobOutcome.RUNNING else each
