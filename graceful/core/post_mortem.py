"""Closes the report of a worker that was killed, from what a reaper found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from graceful.core.phases import JobOutcome, Outcome, Reason
from graceful.core.records import InFlightJob, JobTally, ShutdownReport, Spans
from graceful.core.untrusted import EARLIEST, LATEST

SHORTEST_GRACE_SECONDS = 8.0
"""Platforms wait at least 10 s before SIGKILL (Docker); a death earlier after the signal has another cause."""

LAST_HEARTBEAT = "last heartbeat"
OUT_OF_MEMORY = "probably out of memory"
GRACE_OVER = "probably killed because the platform's grace period was over"
"""Notes by which pages recognise what is known of a death."""


class Findings(NamedTuple):
    """What a reaper found.

    Args:
        found_at: when it found the dead worker.
        found_by: the reaper: ``"worker w1"``.
        last_heartbeat: the dead worker's last heartbeat in seconds since the epoch, by the server's clock.
        job: the job that it held, with its outcome.
        oom_killed: the OOM killer has killed a process of its control group since its start.
    """

    found_at: datetime
    found_by: str
    last_heartbeat: float | None
    job: InFlightJob | None
    oom_killed: bool


def closed(report: ShutdownReport, findings: Findings) -> ShutdownReport:
    """The sealed report of a dead worker; the phase stays the last one that it reached."""
    heartbeat = _moment(findings.last_heartbeat)
    notes = [report.notes] if report.notes else []
    if heartbeat is not None:
        notes.append(f"{LAST_HEARTBEAT} {heartbeat.isoformat(timespec='seconds')}")
    if findings.oom_killed:
        notes.append(f"{OUT_OF_MEMORY}: the kernel killed a process of its control group")
    elif _grace_over(report, heartbeat or findings.found_at):
        notes.append(GRACE_OVER)
    notes.append(f"closed by {findings.found_by}")
    return report._replace(
        reason=Reason.KILLED,
        outcome=Outcome.KILLED,
        exit_code=None,
        ended_at=max([heartbeat, *_seen(report)]) if heartbeat else findings.found_at,
        seconds=report.seconds._replace(total=None) if report.seconds else Spans(),
        jobs=_jobs(report.jobs, findings.job),
        notes="; ".join(notes),
    )


def last_seen(report: ShutdownReport) -> datetime | None:
    """When a killed worker was last seen alive; None if only the time is known at which it was found dead."""
    return report.ended_at if LAST_HEARTBEAT in report.notes else None


def amended(report: ShutdownReport, job: InFlightJob | None) -> ShutdownReport:
    """A sealed report whose worker still held ``job``, with the job's later outcome."""
    return report if job is None else report._replace(jobs=_jobs(report.jobs, job))


def knows_more(report: ShutdownReport, stored: ShutdownReport) -> bool:
    """Whether a report equals the stored one, except that it knows the outcome of more of the jobs."""

    def unknown(each: ShutdownReport) -> int:
        return sum(job.outcome is JobOutcome.UNKNOWN for job in each.jobs.in_flight)

    return report._replace(jobs=stored.jobs) == stored and unknown(report) < unknown(stored)


def _moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time; None for a score that is out of range."""
    if seconds is None or not EARLIEST.timestamp() <= seconds < LATEST.timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _seen(report: ShutdownReport) -> list[datetime]:
    """Times at which it was certainly alive; the heartbeat's is precise to the second only."""
    return [at for at in (report.started_at, report.requested_at, report.drained_at) if at is not None]


def _grace_over(report: ShutdownReport, last_seen: datetime) -> bool:
    if report.requested_at is None:
        return False
    return (last_seen - report.requested_at).total_seconds() >= SHORTEST_GRACE_SECONDS


def _jobs(tally: JobTally, job: InFlightJob | None) -> JobTally:
    """With the outcome of ``job``; one that ended by itself counts only if it was in flight at the shutdown."""
    known = tuple(_settled(each, job) for each in tally.in_flight)
    if job is None:
        return tally._replace(in_flight=known)
    finished, failed = job.outcome is JobOutcome.FINISHED, job.outcome is JobOutcome.FAILED
    before = [each.outcome for each in tally.in_flight if each.id == job.id]
    if not before and not finished and not failed:
        known = (*known, job)
    # A job that turns out to have ended by itself was not counted yet.
    counts = before and before[0] in (JobOutcome.RUNNING, JobOutcome.UNKNOWN)
    return tally._replace(
        finished=tally.finished + bool(counts and finished),
        failed=tally.failed + bool(counts and failed),
        in_flight=known,
    )


def _settled(each: InFlightJob, job: InFlightJob | None) -> InFlightJob:
    if job is not None and each.id == job.id:
        reached = each if job.progress_done is None else job
        return each._replace(
            outcome=job.outcome,
            interruptions=job.interruptions,
            progress_done=reached.progress_done,
            progress_total=reached.progress_total,
        )
    return each._replace(outcome=JobOutcome.UNKNOWN) if each.outcome is JobOutcome.RUNNING else each
