"""A shutdown told in sentences, in the current language; a pure function of the report.

Every name from outside has its control characters escaped; the template escapes HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.outcome import WENT_WRONG
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.post_mortem import last_seen
from graceful.core.records import HookResult, InFlightJob, ShutdownReport
from graceful.core.text import cut, one_line
from graceful.reports.rows import local_time
from graceful.reports.sentences import sentences
from graceful.reports.text import seconds_text

MOST_TOLD = 20
"""Jobs, and hooks, that get a sentence of their own."""
LONGEST_NAME = 120

FRAME = re.compile(r'^[ \t]{0,40}File "([^"\n]{1,1000})", line (\d{1,9})', re.MULTILINE)


def story(report: ShutdownReport) -> tuple[str, ...]:
    """What happened, one sentence after the other; times are in the current time zone."""
    return (*_beginning(report), *_jobs(report), *_hooks(report), *_end(report))


def progress_text(job: InFlightJob) -> str:
    """How far a job's loop had got: ``39 of 200``; empty if it has none."""
    if job.progress_done is None:
        return ""
    if job.progress_total is None:
        return ngettext("%(done)d item", "%(done)d items", job.progress_done) % {"done": job.progress_done}
    return _("%(done)d of %(total)d") % {"done": job.progress_done, "total": job.progress_total}


def place_of(traceback: str) -> str:
    """File and line of a traceback's innermost frame: ``queue.py:42``; empty if there is none."""
    frames = FRAME.findall(traceback)
    if not frames:
        return ""
    file, line = frames[-1]
    return f"{_name(file.rsplit('/', 1)[-1])}:{line}"


def clock_text(moment: datetime) -> str:
    """The time of day in the current time zone."""
    return f"{local_time(moment):%H:%M:%S}"


def _beginning(report: ShutdownReport) -> Iterator[str]:
    if report.requested_at is None:
        if report.outcome is Outcome.KILLED:
            yield _("The worker was killed without having been asked to stop.")
        return
    values = {"time": clock_text(report.requested_at), "signal": _name(report.signal or "")}
    if report.signal:
        yield _("%(signal)s at %(time)s.") % values
        return
    of_reason = {
        Reason.COMMAND: _("The shutdown command arrived at %(time)s."),
        Reason.BURST: _("The queues were empty at %(time)s, and the burst was over."),
        Reason.MAX_JOBS: _("The worker had run its maximum number of jobs at %(time)s."),
        Reason.IDLE: _("The worker had been idle for its maximum time at %(time)s."),
        Reason.MEMORY: _("The worker had reached its limit of memory at %(time)s."),
        Reason.AGE: _("The worker had reached its maximum age at %(time)s."),
        Reason.REDIS_LOST: _("Redis could not be used any more at %(time)s."),
        Reason.ERROR: _("An error ended the worker at %(time)s."),
    }
    yield of_reason.get(report.reason or Reason.EXIT, _("The shutdown began at %(time)s.")) % values


def _jobs(report: ShutdownReport) -> Iterator[str]:
    jobs = report.jobs.in_flight
    if not jobs and report.requested_at is not None:
        yield _("No job was in flight.")
    for job in jobs[:MOST_TOLD]:
        yield _job(job)
    if (more := len(jobs) - MOST_TOLD) > 0:
        words = ngettext("%(count)d more job was in flight.", "%(count)d more jobs were in flight.", more)
        yield words % {"count": more}


def _job(job: InFlightJob) -> str:
    values = {"job": _name(job.function or job.id), "seconds": seconds_text(job.seconds)}
    if job.seconds is None:
        of_outcome = {
            JobOutcome.RUNNING: _("Job %(job)s was in flight."),
            JobOutcome.FINISHED: _("Job %(job)s finished."),
            JobOutcome.FAILED: _("Job %(job)s failed by itself."),
            JobOutcome.INTERRUPTED: _("Job %(job)s was interrupted and requeued at the front of its queue."),
            JobOutcome.INTERRUPTION_FAILED: _("Job %(job)s was interrupted, and failed for it."),
            JobOutcome.KILLED: _("Job %(job)s was killed and requeued at the front of its queue."),
            JobOutcome.RETURNED: _("Job %(job)s was not started; it went back to the front of its queue."),
            JobOutcome.CANCELED: _("Job %(job)s had been cancelled, and was ended."),
            JobOutcome.UNKNOWN: _("Job %(job)s was in flight; what became of it is not known."),
        }
    else:
        of_outcome = {
            JobOutcome.RUNNING: _("Job %(job)s was still in flight after %(seconds)s."),
            JobOutcome.FINISHED: _("Job %(job)s finished after %(seconds)s."),
            JobOutcome.FAILED: _("Job %(job)s failed by itself after %(seconds)s."),
            JobOutcome.INTERRUPTED: _(
                "Job %(job)s was interrupted after %(seconds)s and requeued at the front of its queue."
            ),
            JobOutcome.INTERRUPTION_FAILED: _("Job %(job)s was interrupted after %(seconds)s, and failed for it."),
            JobOutcome.KILLED: _("Job %(job)s was killed after %(seconds)s and requeued at the front of its queue."),
            JobOutcome.RETURNED: _("Job %(job)s was not started; it went back to the front of its queue."),
            JobOutcome.CANCELED: _("Job %(job)s had been cancelled, and was ended after %(seconds)s."),
            JobOutcome.UNKNOWN: _("Job %(job)s was in flight after %(seconds)s; what became of it is not known."),
        }
    sentence = of_outcome[job.outcome] % values
    if reached := progress_text(job):
        sentence = sentences((sentence, _("It had done %(progress)s.") % {"progress": reached}))
    return sentence


def _hooks(report: ShutdownReport) -> Iterator[str]:
    wrong = [hook for hook in report.hooks if hook.outcome in WENT_WRONG]
    for hook in wrong[:MOST_TOLD]:
        yield _hook(hook)
    if (more := len(wrong) - MOST_TOLD) > 0:
        yield ngettext("%(count)d more hook went wrong.", "%(count)d more hooks went wrong.", more) % {"count": more}
    ok = sum(hook.outcome is HookOutcome.OK for hook in report.hooks)
    if ok:
        seconds = seconds_text(sum(hook.seconds for hook in report.hooks if hook.outcome is HookOutcome.OK))
        yield ngettext(
            "%(count)d exit hook succeeded, in %(seconds)s.", "%(count)d exit hooks succeeded, in %(seconds)s.", ok
        ) % {"count": ok, "seconds": seconds}


def _hook(hook: HookResult) -> str:
    values = {
        "hook": _name(hook.name),
        "seconds": seconds_text(hook.seconds),
        "place": place_of(hook.traceback),
        "error": _name(hook.error),
    }
    if hook.outcome is HookOutcome.TIMED_OUT:
        if values["place"]:
            return _("Exit hook %(hook)s timed out after %(seconds)s at %(place)s.") % values
        return _("Exit hook %(hook)s timed out after %(seconds)s.") % values
    if values["place"] and values["error"]:
        return _("Exit hook %(hook)s failed after %(seconds)s at %(place)s: %(error)s") % values
    return _("Exit hook %(hook)s failed after %(seconds)s: %(error)s") % values


def _end(report: ShutdownReport) -> Iterator[str]:
    if report.outcome is Outcome.KILLED:
        if report.ended_at is not None:
            words = (
                _("It was last seen alive at %(time)s.") if last_seen(report) else _("It was found dead at %(time)s.")
            )
            yield words % {"time": clock_text(report.ended_at)}
        return
    if report.phase is not Phase.SEALED or report.exit_code is None:
        return
    total, period = report.seconds.total, report.grace.period
    values = {"code": report.exit_code, "total": seconds_text(total)}
    if total is None:
        yield _("The worker exited with code %(code)d.") % values
    elif period is None or not report.reason or not report.reason.asked_for:
        yield _("The worker exited with code %(code)d after %(total)s.") % values
    elif total <= period:
        values["left"] = seconds_text(period - total)
        yield _("The worker exited with code %(code)d after %(total)s, %(left)s before its deadline.") % values
    else:
        values["late"] = seconds_text(total - period)
        yield _("The worker exited with code %(code)d after %(total)s, %(late)s past its deadline.") % values


def _name(text: str) -> str:
    return one_line(cut(text, LONGEST_NAME).replace("\n", " "))
