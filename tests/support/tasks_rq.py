"""A task of django-tasks-rq; imported where ``TASKS`` names its backend."""

from __future__ import annotations

import time

from django_tasks import task
from rq import get_current_job

TASKS = {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": []}}
RUNS = "tests:runs"


@task()
def slow(seconds: float) -> int:
    """Sleeps in its first run only; returns in which run it came to its end."""
    job = get_current_job()
    assert job is not None
    run: int = job.connection.incr(RUNS)
    if run == 1:
        time.sleep(seconds)
    return run
