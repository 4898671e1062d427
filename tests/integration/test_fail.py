"""Failing a job on RQ's own way, in the name of a worker that is in the middle of something else."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.registry import FailedJobRegistry

from graceful.worker import GracefulWorker
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from tests.support import jobs


class Watched(GracefulWorker):
    """Notes what the living worker's execution is while a job is failed."""

    living: Any = None
    seen: list[Any]

    def handle_job_failure(self, *args: Any, **kwargs: Any) -> None:
        type(self).seen = [self.living.execution]
        super().handle_job_failure(*args, **kwargs)


class Cut(GracefulWorker):
    """Redis cannot be reached just when the first failure is stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cuts = ["the first"]  # On RQ 2 a copy of the worker fails the job.

    def cleanup_execution(self, job: Job, pipeline: Any, *execution: Any, **named: Any) -> None:
        super().cleanup_execution(job, pipeline, *execution, **named)
        if self.cuts:
            self.cuts.pop()

            def lost(*args: Any, **kwargs: Any) -> None:
                raise redis.exceptions.ConnectionError("cut")

            pipeline.execute = lost


def test_a_failure_that_could_not_be_stored_is_an_error(connection: redis.Redis, queue: Queue) -> None:
    """A reaper does not take a job for failed, and forget who held it, while Redis knows nothing of the failure."""
    worker: Any = Cut([queue], connection=connection)
    job = queue.enqueue(jobs.quick)
    queue.remove(job)
    with pytest.raises(redis.exceptions.ConnectionError, match="could not be stored"):
        fail_job.fail(worker, job, queue, None, 4, by_policy=False)
    assert fail_job.fail(worker, job, queue, None, 4, by_policy=False)
    assert job.get_status(refresh=True) == "failed"
    assert job.id in FailedJobRegistry(queue=queue)


@pytest.mark.parametrize("known", [True, False])
def test_a_dead_workers_job_leaves_the_living_workers_execution_alone(
    known: bool, connection: redis.Redis, queue: Queue
) -> None:
    """Another thread sends the heartbeats of the execution in flight: it must find that one at every instant."""
    worker: Any = Watched([queue], connection=connection)
    Watched.living = worker
    own, dead = queue.enqueue(jobs.quick), queue.enqueue(jobs.quick)
    with connection.pipeline() as pipeline:
        mine, others = (Execution.create(job, 60, pipeline=pipeline) for job in (own, dead))
        pipeline.execute()
    worker.execution = mine
    rq_private.fail(worker, dead, queue, "its worker died", others if known else None)
    assert Watched.seen == [mine]
    assert worker.execution is mine
    assert dead.get_status(refresh=True) == "failed"
    assert dead.id in FailedJobRegistry(queue=queue)
    assert connection.exists(mine.key)
    assert connection.exists(others.key) == (0 if known else 1)
