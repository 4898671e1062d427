"""The timeline of a shutdown: which part of it took how long, as bars, with the limits as lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from graceful.core.phases import HookOutcome, Outcome
from graceful.core.post_mortem import last_seen
from graceful.core.records import ShutdownReport
from graceful.core.text import one_line
from graceful.reports.text import seconds_text

NARROWEST = 0.4
"""Narrowest bar in percent of the whole, so that it stays visible."""
MOST_HOOKS = 40
MOST_JOBS = 10
SHORTEST_SHARE = 0.1
"""A shutdown shorter than this part of its grace period is drawn without it: its parts could not be told apart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of the shutdown.

    Args:
        label: what it is.
        kind: drain, hooks, rest, alive, or what became of a job or hook.
        start: where it begins, in percent of the whole, as SVG takes it.
        width: how wide it is, in percent of the whole, as SVG takes it.
        seconds: how long it took, in words.
        nested: whether it is a part of the bar above.
    """

    label: str
    kind: str
    start: str
    width: str
    seconds: str
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as a line through all bars.

    Args:
        label: what it is, with its seconds.
        kind: ``soft`` or ``deadline``.
        at: where it is, in percent of the whole, as SVG takes it.
    """

    label: str
    kind: str
    at: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is drawn: nothing if there are no bars."""

    bars: tuple[Bar, ...] = ()
    limits: tuple[Limit, ...] = ()
    headroom: str = ""
    """In words, where the deadline is too far away to be drawn."""


@dataclass(frozen=True, slots=True)
class _Spans:
    drain: float | None
    hooks: float | None
    rest: float
    alive: float
    """After what is known, how long the worker was still seen."""

    @property
    def whole(self) -> float:
        return (self.drain or 0.0) + (self.hooks or 0.0) + self.rest + self.alive


def timeline(report: ShutdownReport) -> Timeline:
    """The parts of a shutdown in their order: the drain with its jobs, the hooks one by one, and what came after.

    Of a killed worker, what is known from its last heartbeat. Empty if the report has no durations.
    """
    spans = _spans(report)
    whole = spans.whole
    if not whole > 0:
        return Timeline()
    period = report.grace.period if report.reason is not None and _had_deadline(report) else None
    if period is not None and period <= 0:
        period = None
    drawn = period is not None and period * SHORTEST_SHARE <= whole <= 100 * period
    scale = max(whole, period or 0.0) if drawn else whole
    return Timeline(
        bars=_bars(report, spans, scale),
        limits=_limits(report, scale) if drawn else (),
        headroom=_headroom(report, period, whole) if period is not None and not drawn else "",
    )


def _had_deadline(report: ShutdownReport) -> bool:
    if report.outcome is Outcome.KILLED:
        return report.requested_at is not None
    return report.reason is not None and report.reason.asked_for


def _spans(report: ShutdownReport) -> _Spans:
    seconds = report.seconds
    if report.outcome is not Outcome.KILLED:
        drain, hooks = seconds.drain, seconds.hooks
        rest = max(0.0, (seconds.total or 0.0) - (drain or 0.0) - (hooks or 0.0))
        return _Spans(drain, hooks, rest, 0.0)
    drain = seconds.drain
    if drain is None:
        drain = _between(report.requested_at, report.drained_at)
    ran = sum(hook.seconds for hook in report.hooks if hook.seconds > 0)
    hooks = seconds.hooks if seconds.hooks is not None else ran if report.hooks else None
    seen = _between(report.requested_at, last_seen(report)) or 0.0
    return _Spans(drain, hooks, 0.0, max(0.0, seen - (drain or 0.0) - (hooks or 0.0)))


def _bars(report: ShutdownReport, spans: _Spans, scale: float) -> tuple[Bar, ...]:
    def bar(label: str, kind: str, start: float, seconds: float, *, nested: bool = False) -> Bar:
        width = min(100.0, max(NARROWEST, 100 * seconds / scale))
        left = min(100 * start / scale, 100 - width)
        return Bar(label, kind, f"{max(0.0, left):.2f}%", f"{width:.2f}%", seconds_text(seconds), nested)

    bars = []
    if spans.drain is not None:
        bars.append(bar(_("Drain"), "drain", 0.0, spans.drain))
    for job in [job for job in report.jobs.in_flight if job.seconds is not None][:MOST_JOBS]:
        name = one_line(job.function or job.id)[:60]
        bars.append(bar(name, job.outcome, 0.0, max(0.0, job.seconds or 0.0), nested=True))
    start = spans.drain or 0.0
    if spans.hooks is not None:
        bars.append(bar(_("Exit hooks"), "hooks", start, spans.hooks))
    for hook in [hook for hook in report.hooks if hook.outcome is not HookOutcome.SKIPPED][:MOST_HOOKS]:
        bars.append(bar(one_line(hook.name)[:60], hook.outcome, start, hook.seconds, nested=True))
        start += hook.seconds
    after = (spans.drain or 0.0) + (spans.hooks or 0.0)
    if spans.rest > spans.whole / 1000:
        bars.append(bar(_("Report and exit"), "rest", after, spans.rest))
    if spans.alive > 0:
        bars.append(bar(_("Last seen alive"), "alive", after, spans.alive))
    return tuple(bars)


def _limits(report: ShutdownReport, scale: float) -> tuple[Limit, ...]:
    grace, limits = report.grace, []
    period = grace.period or 0.0
    if grace.hooks is not None and grace.interrupt is not None and report.jobs.in_flight:
        soft = period - grace.hooks - grace.interrupt
        if 0 < soft < period:
            limits.append(_limit(_("soft limit, %(seconds)s"), "soft", soft, scale))
    limits.append(_limit(_("deadline, %(seconds)s"), "deadline", period, scale))
    return tuple(limits)


def _limit(words: str, kind: str, seconds: float, scale: float) -> Limit:
    # A little to the left of the right edge, where half of the line would be cut off.
    return Limit(words % {"seconds": seconds_text(seconds)}, kind, f"{min(99.6, 100 * seconds / scale):.2f}%")


def _headroom(report: ShutdownReport, period: float, whole: float) -> str:
    values = {"seconds": seconds_text(abs(period - whole)), "period": seconds_text(period)}
    if report.outcome is Outcome.KILLED:
        return _("The deadline was %(period)s after the request.") % values
    if whole > period:
        return _("Ended %(seconds)s after the deadline of %(period)s.") % values
    return _("Ended %(seconds)s before the deadline of %(period)s.") % values


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())
