"""The other side of :mod:`graceful.worker.horse.spawn`: what a newly started horse does."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from graceful.jobs.shared_memory import SharedMemory
from graceful.worker.classes import make_graceful
from graceful.worker.compat import rq_private
from graceful.worker.horse.run import not_started
from graceful.worker.horse.spawn import connect


def main(descriptor: int) -> None:
    """Read from the descriptor who we are, and do the job; never returns."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        letter: dict[str, Any] = pickle.load(file)
    memory = SharedMemory(letter["memory"], letter["stacks"])
    try:
        worker, job, queue = _prepare(letter, memory)
    except (RedisError, NoSuchJobError) as error:
        # Redis is away, or was restarted without its last moments.
        not_started(memory, letter["job"], error)
        sys.exit(1)
    worker.main_work_horse(job, queue)


def _prepare(letter: dict[str, Any], memory: SharedMemory) -> tuple[Any, Job, Queue]:
    attributes = letter["attributes"]
    connection = connect(letter["connection"])
    worker: Any = make_graceful(letter["worker_class"]).find_by_key(
        letter["worker_key"],
        connection=connection,
        job_class=attributes["job_class"],
        queue_class=attributes["queue_class"],
        serializer=letter["serializer"],
    )
    if worker is None:
        raise NoSuchJobError(f"there is no worker {letter['worker_key']}")
    for name, value in attributes.items():
        setattr(worker, name, value)
    for handler in letter["exception_handlers"]:
        worker.push_exc_handler(handler)
    worker.join(letter["worker_id"], memory)
    job = worker.job_class.fetch(letter["job"], connection=connection, serializer=worker.serializer)
    queue = worker.queue_class(
        letter["queue"],
        connection=connection,
        job_class=worker.job_class,
        serializer=worker.serializer,
        death_penalty_class=worker.death_penalty_class,
    )
    try:
        execution = Execution.fetch(letter["execution"], job.id, connection=connection)
    except ValueError as error:
        raise NoSuchJobError(str(error)) from error
    rq_private.set_job(execution, job)
    worker.execution = execution
    return worker, job, queue
