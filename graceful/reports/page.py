"""A shutdown report as a web page shows it: words and durations ready for the template.

Every text from outside has its control and direction characters escaped, so that it cannot disguise itself; the
template does the escaping of HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from graceful.core.outcome import INTERRUPTED, WENT_WRONG
from graceful.core.phases import Outcome
from graceful.core.post_mortem import last_seen
from graceful.core.records import HookResult, InFlightJob, PeakMemory, ShutdownReport
from graceful.core.text import one_line
from graceful.labels import label
from graceful.reports.remedies import explanation, remedies
from graceful.reports.rows import local_time
from graceful.reports.story import progress_text, story
from graceful.reports.text import megabytes_text, printable_text, seconds_text, short_name
from graceful.reports.timeline import Timeline, timeline

JobLink = Callable[[InFlightJob], str]
"""The address of a job's own page; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label, its value, and an optional note."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job that was in flight."""

    id: str
    link: str
    function: str
    queue: str
    outcome: str
    words: str
    seconds: str
    progress: str
    interruptions: str
    stack: str


@dataclass(frozen=True, slots=True)
class HookRow:
    """One exit hook."""

    name: str
    outcome: str
    words: str
    seconds: str
    timeout: str
    detail: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class ReportPage:
    """Everything that the page of one report shows; what went wrong apart from what went well."""

    title: str
    explanation: str
    notes: str
    story: tuple[str, ...]
    remedies: tuple[str, ...]
    timeline: Timeline
    total: str
    bad_jobs: tuple[JobRow, ...]
    good_jobs: tuple[JobRow, ...]
    bad_hooks: tuple[HookRow, ...]
    good_hooks: tuple[HookRow, ...]
    facts: tuple[Fact, ...]
    moments: tuple[Fact, ...]
    tally: str


def report_page(report: ShutdownReport, job_link: JobLink = lambda job: "") -> ReportPage:
    """The page of a report; times are in the current time zone."""
    jobs, hooks = report.jobs.in_flight, report.hooks
    return ReportPage(
        title=title_of(report),
        explanation=explanation(report),
        notes=printable_text(report.notes),
        story=story(report),
        remedies=remedies(report),
        timeline=timeline(report),
        total="" if report.seconds.total is None else seconds_text(report.seconds.total),
        bad_jobs=tuple(_job(job, job_link) for job in jobs if job.outcome in INTERRUPTED),
        good_jobs=tuple(_job(job, job_link) for job in jobs if job.outcome not in INTERRUPTED),
        bad_hooks=tuple(_hook(hook) for hook in hooks if hook.outcome in WENT_WRONG),
        good_hooks=tuple(_hook(hook) for hook in hooks if hook.outcome not in WENT_WRONG),
        facts=_facts(report),
        moments=_moments(report),
        tally=_("%(finished)d finished and %(failed)d failed in the worker's life")
        % {"finished": report.jobs.finished, "failed": report.jobs.failed},
    )


def title_of(report: ShutdownReport) -> str:
    """What tells one report from another in a browser's tabs and history."""
    moment = report.requested_at or report.ended_at or report.started_at
    return _("Worker %(worker)s, %(time)s: %(outcome)s") % {
        "worker": short_name(report.worker),
        "time": f"{local_time(moment):%Y-%m-%d %H:%M:%S}",
        "outcome": label(report.outcome or report.phase),
    }


def _facts(report: ShutdownReport) -> tuple[Fact, ...]:
    code = _("not observed") if report.exit_code is None else str(report.exit_code)
    reason = label(report.reason)
    facts = (
        Fact(_("Reason"), f"{reason} ({report.signal})" if report.signal else reason),
        Fact(_("Exit code"), code),
        Fact(_("Worker"), report.worker),
        Fact(_("Host"), _("%(host)s, process %(pid)s") % {"host": report.hostname, "pid": report.pid}),
        Fact(_("Release"), report.release or "-"),
        Fact(_("Queues"), ", ".join(report.queues)),
        Fact(_("Worker class"), report.worker_class),
        Fact(_("Grace period"), seconds_text(report.grace.period)),
        *_peaks(report.peak),
        Fact(_("Report"), report.id),
    )
    return tuple(Fact(fact.label, one_line(fact.value)) for fact in facts)


def _peaks(peak: PeakMemory) -> Iterator[Fact]:
    if peak.worker is not None:
        yield Fact(_("Peak memory"), megabytes_text(peak.worker))
    if peak.horse is not None:
        yield Fact(_("Peak memory of a job's process"), megabytes_text(peak.horse))


def _moments(report: ShutdownReport) -> tuple[Fact, ...]:
    return (
        Fact(_("Started"), _moment(report.started_at)),
        Fact(_("Shutdown requested"), _moment(report.requested_at)),
        Fact(_("Last job done"), _moment(report.drained_at), _span(report.seconds.drain, _("after %s"))),
        _end(report),
        Fact(_("Phase reached"), label(report.phase)),
    )


def _end(report: ShutdownReport) -> Fact:
    if report.outcome is not Outcome.KILLED:
        return Fact(_("Ended"), _moment(report.ended_at), _span(report.seconds.total, _("%s in all")))
    if last_seen(report) is None:
        return Fact(_("Found dead"), _moment(report.ended_at))
    return Fact(_("Last seen alive"), _moment(report.ended_at), _("the last heartbeat"))


def _moment(at: datetime | None) -> str:
    if at is None:
        return _("not seen")
    local = local_time(at)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


def _span(seconds: float | None, words: str) -> str:
    return "" if seconds is None else words % seconds_text(seconds)


def _job(job: InFlightJob, job_link: JobLink) -> JobRow:
    return JobRow(
        id=one_line(job.id),
        link=job_link(job),
        function=one_line(job.function),
        queue=one_line(job.queue),
        outcome=job.outcome.value,
        words=label(job.outcome),
        seconds=seconds_text(job.seconds),
        progress=progress_text(job) or "-",
        interruptions=str(job.interruptions),
        stack=printable_text(job.stack),
    )


def _hook(hook: HookResult) -> HookRow:
    return HookRow(
        name=one_line(hook.name),
        outcome=hook.outcome.value,
        words=label(hook.outcome),
        seconds=seconds_text(hook.seconds),
        timeout=seconds_text(hook.timeout),
        detail=one_line(hook.detail),
        error=one_line(hook.error),
        traceback=printable_text(hook.traceback),
    )
