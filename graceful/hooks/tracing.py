"""A shutdown as OpenTelemetry spans: one of the whole, with children for the drain and for each exit hook.

Only where the process has configured OpenTelemetry's SDK; nothing is imported here, and nothing is done before the
hooks. The spans are made at once, with the times that they had, either by the hook that shuts the tracer provider down
or, without one, after the report is stored: an exporter that does not answer holds up nothing before that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from graceful.core.outcome import INTERRUPTED, WENT_WRONG, outcome_of
from graceful.core.phases import Outcome, Reason
from graceful.core.records import HookResult, ShutdownReport

NAMESPACE = "graceful"


@dataclass
class Trace:
    """What is known of the shutdown that this process is in.

    Args:
        report: the report as it stands.
        hooks: results of the hooks so far, each with the wall clock at its end, in nanoseconds.
        emitted: whether the spans are made.
    """

    report: Callable[[], ShutdownReport]
    hooks: list[tuple[HookResult, int]] = field(default_factory=list)
    emitted: bool = False

    def hook_ended(self, result: HookResult) -> None:
        self.hooks.append((result, time.time_ns()))


_current: Trace | None = None


def begin(report: Callable[[], ShutdownReport]) -> Trace:
    """A worker starts; ``report`` gives its report as it stands."""
    global _current
    _current = Trace(report)
    return _current


def provider() -> Any:
    """The SDK's tracer provider; None where this process has not configured one."""
    trace = sys.modules.get("opentelemetry.trace")
    found = None if trace is None else trace.get_tracer_provider()
    return found if hasattr(found, "shutdown") else None


def emit() -> None:
    """Make the spans of the shutdown that this process is in, once; what is not over yet ends now."""
    shown, tracer_provider = _current, provider()
    if shown is None or shown.emitted or tracer_provider is None:
        return
    shown.emitted = True
    _make(shown, tracer_provider)


def emit_and_flush(seconds: float) -> None:
    """:func:`emit`, and have the spans exported.

    Args:
        seconds: that the exporter may take.
    """
    if _current is not None and not _current.emitted and (tracer_provider := provider()) is not None:
        emit()
        tracer_provider.force_flush(int(seconds * 1000))


def _make(shown: Trace, tracer_provider: Any) -> None:
    trace = sys.modules["opentelemetry.trace"]
    root_context = sys.modules["opentelemetry.context"].Context()
    report, now = shown.report(), time.time_ns()
    began = _nanoseconds(report.requested_at) or now
    ended = max(began, _nanoseconds(report.ended_at) or now)
    tracer = tracer_provider.get_tracer(NAMESPACE)
    root = tracer.start_span("worker shutdown", root_context, attributes=_attributes(report), start_time=began)
    context = trace.set_span_in_context(root, root_context)
    if (drained := _nanoseconds(report.drained_at)) is not None:
        tracer.start_span("drain", context, start_time=began).end(end_time=max(began, drained))
    for result, over in shown.hooks:
        over = min(over, ended)
        span = tracer.start_span(
            result.name,
            context,
            attributes={f"{NAMESPACE}.hook.outcome": result.outcome.value},
            start_time=max(began, over - int(result.seconds * 1e9)),
        )
        if result.outcome in WENT_WRONG:
            span.set_status(trace.StatusCode.ERROR, result.error)
        span.end(end_time=over)
    if _outcome(report) not in (Outcome.CLEAN, Outcome.INTERRUPTED):
        root.set_status(trace.StatusCode.ERROR, report.notes or _outcome(report).value)
    root.end(end_time=ended)


def _attributes(report: ShutdownReport) -> dict[str, Any]:
    attributes = {
        "worker": report.worker,
        "queues": report.queues,
        "release": report.release,
        "reason": report.reason.value if report.reason else None,
        "signal": report.signal,
        "outcome": _outcome(report).value,
        "exit_code": report.exit_code,
        "jobs.finished": report.jobs.finished,
        "jobs.failed": report.jobs.failed,
        "jobs.interrupted": sum(job.outcome in INTERRUPTED for job in report.jobs.in_flight),
    }
    return {f"{NAMESPACE}.{key}": value for key, value in attributes.items() if value not in (None, "")}


def _outcome(report: ShutdownReport) -> Outcome:
    """The outcome; before the end, that of what has happened so far."""
    return report.outcome or outcome_of(report.reason or Reason.ERROR, report.hooks, report.jobs.in_flight)


def _nanoseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1e9)
