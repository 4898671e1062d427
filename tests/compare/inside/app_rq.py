"""django-rq, with the stock worker and with ours."""

from __future__ import annotations

import django

django.setup()

import django_rq  # noqa: E402
import work  # noqa: E402
from rq.exceptions import NoSuchJobError  # noqa: E402
from rq.job import Job  # noqa: E402

STATES = {"queued": "queued", "started": "held", "failed": "failed", "finished": "finished"}


def enqueue(job: str, seconds: float, endless: bool) -> None:
    django_rq.get_queue("default").enqueue(work.run, job, seconds, endless, job_id=job)


def state(job: str) -> str:
    queue = django_rq.get_queue("default")
    try:
        status = Job.fetch(job, connection=queue.connection).get_status()
    except NoSuchJobError:
        return "gone"
    if status == "queued" and job not in queue.job_ids:
        return "gone"  # Its record says queued, and it is in no queue.
    return STATES.get(status.value if status else "", str(status))
