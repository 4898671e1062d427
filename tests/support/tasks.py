"""``TASKS`` of the tests, for this process and for workers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

TASKS: dict[str, Any] = {
    "default": {
        "BACKEND": "graceful.tasks.RQBackend",
        "QUEUES": ["default", "high"],
        "OPTIONS": {"job_timeout": 50, "result_ttl": 300, "failure_ttl": 400},
    }
}


def functions() -> Any:
    """The module of tasks, imported with ``TASKS`` in place."""
    return import_module("tests.support.task_functions")
