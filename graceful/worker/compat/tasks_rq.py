"""The jobs of django-tasks-rq, another backend of Django's Tasks, beside ordinary ones in one worker.

Imported only where ``TASKS`` names that backend.
"""

from __future__ import annotations

from typing import Any

from django_tasks_rq import Job as TasksRQJob
from rq.job import Job

MARK = "backend_name"
"""In the ``meta`` of its jobs (``django_tasks_rq.backend.RQBackend.enqueue`` 0.12)."""


class TaskOrJob(TasksRQJob):
    """Runs a task as django-tasks-rq's job class does, and any other job as RQ's: theirs refuses that."""

    @property
    def func(self) -> Any:
        return super().func if MARK in self.meta else Job.func.fget(self)  # type: ignore[attr-defined]

    def perform(self) -> Any:
        return super().perform() if MARK in self.meta else Job.perform(self)

    def _execute(self) -> Any:
        return super()._execute() if MARK in self.meta else Job._execute(self)
