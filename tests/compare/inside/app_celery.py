"""Celery on Redis; ``COMPARE_APP=celery_late`` with what its documents advise against losing tasks."""

from __future__ import annotations

import os

import redis
import work
from celery import Celery
from celery.signals import worker_shutdown

URL = os.environ["COMPARE_BROKER"]
app = Celery("compare", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
if os.environ["COMPARE_APP"] == "celery_late":
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=float(os.environ["COMPARE_BUDGET"]) - 3,
        broker_transport_options={"visibility_timeout": 60},
    )


@app.task(name="run")
def run(job: str, seconds: float, endless: bool) -> None:
    work.run(job, seconds, endless)


@worker_shutdown.connect
def at_shutdown(**_: object) -> None:
    work.hook()


def enqueue(job: str, seconds: float, endless: bool) -> None:
    run.apply_async((job, seconds, endless), task_id=job)


def state(job: str) -> str:
    status = app.AsyncResult(job).state
    if status in ("SUCCESS", "FAILURE", "REVOKED"):
        return {"SUCCESS": "finished", "FAILURE": "failed", "REVOKED": "failed"}[status]
    client = redis.Redis.from_url(URL)
    if any(job.encode() in message for message in client.lrange("celery", 0, -1)):
        return "queued"
    if any(job.encode() in message for message in client.hvals("unacked")):
        return "held"
    return "gone"
