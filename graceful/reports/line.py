"""The one log line of each shutdown."""

from __future__ import annotations

import logging
from typing import Any

from graceful.core.phases import HookOutcome, JobOutcome, Outcome
from graceful.core.records import ShutdownReport
from graceful.core.text import one_line
from graceful.reports.text import seconds_text

STOPPED = (JobOutcome.INTERRUPTED, JobOutcome.INTERRUPTION_FAILED, JobOutcome.KILLED)
"""Outcomes of jobs that the shutdown ended."""

logger = logging.getLogger("graceful.shutdown")


def log_line(report: ShutdownReport) -> str:
    """The shutdown in one line.

    For instance ``Shutdown of worker web-1.4242: clean after 2.31 s (SIGTERM; 3 jobs finished, 0 failed; hooks 4/4 ok;
    exit code 0)``. Control characters in foreign text are escaped, so that it stays one line.
    """
    outcome = (report.outcome or report.phase).replace("_", " ")
    after = "" if report.seconds.total is None else f" after {seconds_text(report.seconds.total)}"
    facts = [report.signal or (report.reason or "no reason").replace("_", " ")]
    finished = report.jobs.finished
    facts.append(f"{finished} {'job' if finished == 1 else 'jobs'} finished, {report.jobs.failed} failed")
    stopped = interrupted_count(report)
    if stopped:
        facts.append(f"{stopped} interrupted")
    unknown = sum(job.outcome is JobOutcome.UNKNOWN for job in report.jobs.in_flight)
    if unknown:
        facts.append(f"{unknown} unknown")
    ok, of_all = hooks_count(report)
    facts.append(f"hooks {ok}/{of_all} ok" if of_all else "no hooks")
    if report.exit_code is not None:
        facts.append(f"exit code {report.exit_code}")
    return one_line(f"Shutdown of worker {report.worker}: {outcome}{after} ({'; '.join(facts)})")


def log_shutdown(report: ShutdownReport) -> None:
    """Log the line to ``graceful.shutdown``, its facts as ``extra``: INFO if it was clean, WARNING otherwise."""
    level = logging.INFO if report.outcome is Outcome.CLEAN else logging.WARNING
    logger.log(level, "%s", log_line(report), extra=log_extra(report))


def log_extra(report: ShutdownReport) -> dict[str, Any]:
    """The facts of the line for structured logs; the prefix avoids clashes with attributes of a ``LogRecord``."""
    ok, of_all = hooks_count(report)
    return {
        "shutdown_id": report.id,
        "shutdown_worker": report.worker,
        "shutdown_hostname": report.hostname,
        "shutdown_release": report.release,
        "shutdown_queues": list(report.queues),
        "shutdown_reason": report.reason and report.reason.value,
        "shutdown_signal": report.signal,
        "shutdown_outcome": report.outcome and report.outcome.value,
        "shutdown_exit_code": report.exit_code,
        "shutdown_phase": report.phase.value,
        "shutdown_seconds": report.seconds.total,
        "shutdown_jobs_finished": report.jobs.finished,
        "shutdown_jobs_failed": report.jobs.failed,
        "shutdown_jobs_interrupted": interrupted_count(report),
        "shutdown_hooks_ok": ok,
        "shutdown_hooks_total": of_all,
    }


def hooks_count(report: ShutdownReport) -> tuple[int, int]:
    """How many hooks were ok, and how many ran; one that was skipped is neither."""
    ran = [hook for hook in report.hooks if hook.outcome is not HookOutcome.SKIPPED]
    return sum(hook.outcome is HookOutcome.OK for hook in ran), len(ran)


def interrupted_count(report: ShutdownReport) -> int:
    """How many jobs the shutdown ended."""
    return sum(job.outcome in STOPPED for job in report.jobs.in_flight)
