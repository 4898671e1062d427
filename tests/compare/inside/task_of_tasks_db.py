"""The task of django-tasks-db, where its worker can import it."""

from __future__ import annotations

import work
from django_tasks import task


@task()
def run(job: str, seconds: float, endless: bool) -> None:
    work.run(job, seconds, endless)
