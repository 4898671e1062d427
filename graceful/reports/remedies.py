"""What to do about a shutdown that was not clean: the README's table of symptoms, for one report."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.post_mortem import GRACE_OVER, OUT_OF_MEMORY
from graceful.core.records import ShutdownReport


def explanation(report: ShutdownReport) -> str:
    """What the outcome means, in one sentence."""
    if report.outcome is None:
        return _("The shutdown is in progress, or its report is not closed yet.")
    return {
        Outcome.CLEAN: _("Every job ended by itself, and no exit hook failed."),
        Outcome.INTERRUPTED: _("The shutdown interrupted at least one job, or its end is not known yet."),
        Outcome.HOOKS_FAILED: _("At least one exit hook failed or timed out."),
        Outcome.FORCED: _("The worker did not finish its shutdown by itself; the notes say where it was stuck."),
        Outcome.CRASHED: _("An error ended the worker, or Redis could not be used; the notes name the error."),
        Outcome.KILLED: _("The worker was killed; another process closed this report with what was known."),
    }[report.outcome]


def remedies(report: ShutdownReport) -> tuple[str, ...]:
    """What to do, the most urgent first; empty if nothing is to be done."""
    return tuple(dict.fromkeys((*_of_the_end(report), *_of_jobs(report), *_of_hooks(report))))


def _of_the_end(report: ShutdownReport) -> Iterator[str]:
    if report.outcome is Outcome.KILLED:
        if OUT_OF_MEMORY in report.notes:
            yield _("Check the memory of your jobs; --max-jobs replaces a worker before it grows too large.")
        elif GRACE_OVER in report.notes:
            yield _(
                "The platform waits for less time than GRACEFUL_TIMEOUT before it sends SIGKILL: lengthen its timeout, "
                "or set GRACEFUL_TIMEOUT 5 seconds below it."
            )
        elif report.requested_at is None:
            yield _(
                "SIGKILL came without SIGTERM. Check the memory of your jobs, and whether the signal reaches the "
                "worker: in a container, use the exec form and tini."
            )
        else:
            yield _("SIGKILL came soon after the stop was requested: find out who sent it.")
    elif report.outcome is Outcome.FORCED:
        yield _("Read the notes and stacks for what did not end; give it less to do at the end, or more time.")
    elif report.reason is Reason.REDIS_LOST:
        yield _("Check Redis: whether it was reachable, a replica, or out of memory.")
    elif report.outcome is Outcome.CRASHED:
        yield _("Read the error in the notes; the log of the worker has its traceback.")


def _of_jobs(report: ShutdownReport) -> Iterator[str]:
    outcomes = {job.outcome for job in report.jobs.in_flight}
    if JobOutcome.INTERRUPTION_FAILED in outcomes:
        yield _(
            "A job failed because it was interrupted too often, or is set to fail: let it make progress with "
            "resumable, give it more time, or raise GRACEFUL_MAX_INTERRUPTIONS."
        )
    if JobOutcome.KILLED in outcomes and report.outcome is not Outcome.KILLED:
        yield _(
            "A job did not end when it was interrupted, and was killed: avoid except BaseException and bare except in "
            "it, or raise GRACEFUL_INTERRUPT_TIMEOUT if its cleanup takes longer."
        )
    # One with progress stopped early, between two items of resumable, and goes on there.
    interrupted = [job for job in report.jobs.in_flight if job.outcome is JobOutcome.INTERRUPTED]
    if any(job.progress_done is None for job in interrupted) and report.outcome is not Outcome.KILLED:
        yield _(
            "A job took longer than the soft limit: raise GRACEFUL_TIMEOUT together with the platform's timeout, or "
            "let the job continue where it was stopped with resumable."
        )
    if JobOutcome.UNKNOWN in outcomes:
        yield _(
            "What became of a job is not known yet: the next worker, or manage.py archive_reports, requeues it and "
            "updates this report."
        )


def _of_hooks(report: ShutdownReport) -> Iterator[str]:
    outcomes = {hook.outcome for hook in report.hooks}
    if HookOutcome.FAILED in outcomes:
        yield _("An exit hook failed: its error and traceback are below.")
    if HookOutcome.TIMED_OUT in outcomes:
        yield _("An exit hook timed out: the stack below says where. Make it faster, or give it a longer timeout.")
