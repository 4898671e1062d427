"""A worker class whose module connects a receiver to every signal, as a project's app does.

Environment: ``TEST_NOTES``, the file that receivers write to; ``TEST_HANGS``, ``TEST_EXITS`` and ``TEST_FAILS``, names
of signals whose receivers do so.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from django.dispatch import Signal
from rq import Worker

from graceful import signals
from tests.support.worker_hooks import _note


class Listening(Worker):
    """RQ's worker; importing it connects the receivers."""


def _receiver(name: str) -> Any:
    def receive(sender: object, signal: object, **arguments: Any) -> None:
        job, result, report = (arguments.pop(key, None) for key in ("job", "result", "report"))
        if job is not None:
            arguments["job"] = [job.id, job.outcome]
        if result is not None:
            arguments["result"] = result.name
        if report is not None:
            arguments["report"] = [report.worker, report.outcome, report.exit_code]
        if "jobs" in arguments:
            arguments["jobs"] = [each.outcome for each in arguments["jobs"].in_flight]
        _note(name, **arguments)
        if name == os.environ.get("TEST_HANGS"):
            threading.Event().wait(60)
        if name == os.environ.get("TEST_EXITS"):
            raise SystemExit(3)
        if name == os.environ.get("TEST_FAILS"):
            raise RuntimeError("on purpose\n\x1b[31m")

    return receive


for name, found in vars(signals).items():
    if isinstance(found, Signal):
        found.connect(_receiver(name), weak=False)
