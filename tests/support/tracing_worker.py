"""A worker class whose module configures OpenTelemetry's SDK; the spans are written down as the process ends.

Environment: ``TEST_NOTES``, the file that they are written to; ``TEST_HANGS``, an exporter that does not answer.
"""

from __future__ import annotations

import atexit
import os
import time
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rq import Worker

from tests.support.worker_hooks import _note


class Exporter(InMemorySpanExporter):
    """Keeps the spans; hangs if it is told to."""

    def export(self, spans: Any) -> Any:
        if os.environ.get("TEST_HANGS"):
            time.sleep(60)
        return super().export(spans)


exporter = Exporter()
# Its own atexit function, which the grace period bounds, is not what a hanging exporter is to be seen by.
provider = TracerProvider(shutdown_on_exit=not os.environ.get("TEST_HANGS"))
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=600_000))
trace.set_tracer_provider(provider)
main_pid = os.getpid()


class Traced(Worker):
    """RQ's worker; importing it configures the SDK."""


@atexit.register
def _write_down() -> None:
    if os.getpid() != main_pid:
        return
    for span in exporter.get_finished_spans():
        _note(
            "span",
            name=span.name,
            id=span.context.span_id if span.context else 0,
            parent=span.parent.span_id if span.parent else None,
            begin=span.start_time,
            end=span.end_time,
            status=span.status.status_code.name,
            attributes={key: value for key, value in (span.attributes or {}).items() if key != "graceful.queues"},
        )
