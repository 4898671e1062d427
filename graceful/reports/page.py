"""A shutdown report as a web page shows it: words and durations ready for the template.

Every text from outside has its control and direction characters escaped, so that it cannot disguise itself; the
template does the escaping of HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from graceful.core.records import HookResult, InFlightJob, ShutdownReport
from graceful.core.text import one_line
from graceful.reports.rows import local_time
from graceful.reports.text import printable_text, seconds_text
from graceful.reports.timeline import Bar, timeline


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
    function: str
    queue: str
    outcome: str
    words: str
    seconds: str
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
    """Everything that the page of one report shows."""

    facts: tuple[Fact, ...]
    moments: tuple[Fact, ...]
    bars: tuple[Bar, ...]
    total: str
    tally: str
    jobs: tuple[JobRow, ...]
    hooks: tuple[HookRow, ...]
    notes: str


def report_page(report: ShutdownReport) -> ReportPage:
    """The page of a report; times are in the current time zone."""
    return ReportPage(
        facts=_facts(report),
        moments=_moments(report),
        bars=timeline(report),
        total=seconds_text(report.seconds.total),
        tally=_("%(finished)d finished and %(failed)d failed in the worker's life")
        % {"finished": report.jobs.finished, "failed": report.jobs.failed},
        jobs=tuple(_job(job) for job in report.jobs.in_flight),
        hooks=tuple(_hook(hook) for hook in report.hooks),
        notes=printable_text(report.notes),
    )


def _facts(report: ShutdownReport) -> tuple[Fact, ...]:
    code = _("not observed") if report.exit_code is None else str(report.exit_code)
    reason = (report.reason or "-").replace("_", " ")
    facts = (
        Fact(_("Reason"), f"{reason} ({report.signal})" if report.signal else reason),
        Fact(_("Exit code"), code),
        Fact(_("Worker"), report.worker),
        Fact(_("Host"), _("%(host)s, process %(pid)s") % {"host": report.hostname, "pid": report.pid}),
        Fact(_("Release"), report.release or "-"),
        Fact(_("Queues"), ", ".join(report.queues)),
        Fact(_("Worker class"), report.worker_class),
        Fact(_("Report"), report.id),
    )
    return tuple(Fact(fact.label, one_line(fact.value)) for fact in facts)


def _moments(report: ShutdownReport) -> tuple[Fact, ...]:
    return (
        Fact(_("Started"), _moment(report.started_at)),
        Fact(_("Shutdown requested"), _moment(report.requested_at)),
        Fact(_("Last job done"), _moment(report.drained_at), _span(report.seconds.drain, _("after %s"))),
        Fact(_("Ended"), _moment(report.ended_at), _span(report.seconds.total, _("%s in all"))),
        Fact(_("Phase reached"), report.phase.value),
    )


def _moment(at: datetime | None) -> str:
    if at is None:
        return _("not seen")
    local = local_time(at)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


def _span(seconds: float | None, words: str) -> str:
    return "" if seconds is None else words % seconds_text(seconds)


def _job(job: InFlightJob) -> JobRow:
    return JobRow(
        id=one_line(job.id),
        function=one_line(job.function),
        queue=one_line(job.queue),
        outcome=job.outcome.value,
        words=job.outcome.value.replace("_", " "),
        seconds=seconds_text(job.seconds),
        interruptions=str(job.interruptions),
        stack=printable_text(job.stack),
    )


def _hook(hook: HookResult) -> HookRow:
    return HookRow(
        name=one_line(hook.name),
        outcome=hook.outcome.value,
        words=hook.outcome.value.replace("_", " "),
        seconds=seconds_text(hook.seconds),
        timeout=seconds_text(hook.timeout),
        detail=one_line(hook.detail),
        error=one_line(hook.error),
        traceback=printable_text(hook.traceback),
    )
