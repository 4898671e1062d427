"""The timeline of a shutdown: which part of it took how long, as bars."""

from __future__ import annotations

from dataclasses import dataclass

from graceful.core.phases import HookOutcome
from graceful.core.records import ShutdownReport
from graceful.core.text import one_line
from graceful.reports.text import seconds_text

NARROWEST = 0.4
"""Narrowest bar in percent of the whole, so that it stays visible."""
MOST_HOOKS = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of the shutdown.

    Args:
        label: what it is.
        kind: drain, hooks, rest, or the outcome of a hook.
        start: where it begins, in percent of the whole, as SVG takes it.
        width: how wide it is, in percent of the whole, as SVG takes it.
        seconds: how long it took, in words.
    """

    label: str
    kind: str
    start: str
    width: str
    seconds: str


def timeline(report: ShutdownReport) -> tuple[Bar, ...]:
    """The parts of a shutdown in their order: the drain, the hooks one by one, and what came after.

    Empty if the report has no durations.
    """
    drain, hooks = report.seconds.drain or 0.0, report.seconds.hooks or 0.0
    whole = max(report.seconds.total or 0.0, drain + hooks)
    if not whole > 0:
        return ()

    def bar(label: str, kind: str, start: float, seconds: float) -> Bar:
        width = min(100.0, max(NARROWEST, 100 * seconds / whole))
        left = min(100 * start / whole, 100 - width)
        return Bar(label, kind, f"{max(0.0, left):.2f}%", f"{width:.2f}%", seconds_text(seconds))

    bars = []
    if report.seconds.drain is not None:
        bars.append(bar("Drain", "drain", 0.0, drain))
    if report.seconds.hooks is not None:
        bars.append(bar("Exit hooks", "hooks", drain, hooks))
    start = drain
    for hook in [hook for hook in report.hooks if hook.outcome is not HookOutcome.SKIPPED][:MOST_HOOKS]:
        bars.append(bar(one_line(hook.name)[:60], hook.outcome, start, hook.seconds))
        start += hook.seconds
    rest = whole - drain - hooks
    if rest > whole / 1000:
        bars.append(bar("Report and exit", "rest", drain + hooks, rest))
    return tuple(bars)
