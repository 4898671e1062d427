"""django-tasks-db on PostgreSQL."""

from __future__ import annotations

import django

django.setup()

from django_tasks_db.models import DBTaskResult  # noqa: E402
from task_of_tasks_db import run  # noqa: E402

STATES = {"READY": "queued", "RUNNING": "held", "FAILED": "failed", "SUCCESSFUL": "finished"}


def enqueue(job: str, seconds: float, endless: bool) -> None:
    run.enqueue(job, seconds, endless)


def state(job: str) -> str:
    for result in DBTaskResult.objects.all():
        if job in result.args_kwargs["args"]:
            return STATES.get(result.status, str(result.status))
    return "gone"
