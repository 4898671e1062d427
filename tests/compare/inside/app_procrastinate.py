"""procrastinate, with the periodic task for stalled jobs that its documents describe, every minute."""

from __future__ import annotations

import atexit
import os
from typing import Any

import procrastinate
import work

DSN = f"host={os.environ['COMPARE_BROKER']} user=graceful dbname=graceful"
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN))
# It has no hook of its own.
atexit.register(work.hook)


@app.task(name="run", retry=True)
def run(job: str, seconds: float, endless: bool) -> None:
    work.run(job, seconds, endless)


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs", pass_context=True)
async def retry_stalled_jobs(context: Any, timestamp: int) -> None:
    for stalled in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(stalled)


def enqueue(job: str, seconds: float, endless: bool) -> None:
    with _opened() as opened:
        opened.configure_task("run", allow_unknown=True).defer(job=job, seconds=seconds, endless=endless)


def state(job: str) -> str:
    states = {"todo": "queued", "doing": "held", "failed": "failed", "succeeded": "finished"}
    with _opened() as opened:
        for each in opened.job_manager.list_jobs(task="run"):
            if each.task_kwargs["job"] == job:
                return states.get(each.status, each.status)
    return "gone"


def _opened() -> procrastinate.App:
    # An app of its own: the tasks of the worker's belong to its asynchronous connector.
    return procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=DSN)).open()
