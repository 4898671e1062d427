"""Which job class a worker takes."""

from __future__ import annotations

from typing import Any

import pytest

from graceful.management.worker_options import job_class

OTHER = {"default": {"BACKEND": "django_tasks_rq.RQBackend"}}
FOUND = "graceful.worker.compat.tasks_rq.TaskOrJob"


@pytest.mark.parametrize(
    ("given", "rq", "tasks", "expected"),
    [
        (None, {}, OTHER, FOUND),
        (None, {}, {"a": {}, "b": {"BACKEND": "django_tasks_rq.backend.RQBackend"}}, FOUND),
        ("my.Job", {}, OTHER, "my.Job"),
        (None, {"JOB_CLASS": "my.Job"}, OTHER, None),
        (None, {}, {"default": {"BACKEND": "graceful.tasks.RQBackend"}}, None),
        (None, {}, {"default": "django_tasks_rq.RQBackend"}, None),
        (None, {}, ["a project's own"], None),
        (None, {}, None, None),
    ],
)
def test_job_class(settings: Any, given: str | None, rq: dict[str, str], tasks: Any, expected: str | None) -> None:
    """The given one, or that of the settings, or the one that django-tasks-rq's jobs need where ``TASKS`` names it."""
    settings.RQ, settings.TASKS = rq, tasks
    assert job_class(given) == expected
