"""Undoing what RQ's clean-up did to a dead worker's job: only that, only while it stands, and once."""

from __future__ import annotations

import pytest
import redis
from rq import Callback, Queue, Worker
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry

from graceful import conf
from graceful.worker.cluster.abandoned import undo
from graceful.worker.cluster.heartbeat import remove_stale_holders
from graceful.worker.cluster.registration import WORKERS_KEY
from graceful.worker.compat.rq_private import latest_execution
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY, Fetcher
from graceful.worker.queue.requeue import HeldJob, Requeued, Why, requeue
from tests.support import jobs
from tests.support.job_accounting import balance

WORKER_ID = "worker-id"
NAME = "dead"


class Abandoned:
    """A job that a dead worker holds, and that RQ's clean-up has failed."""

    def __init__(self, connection: redis.Redis, queue: Queue) -> None:
        self.connection, self.queue = connection, queue
        self.job: Job = queue.enqueue(jobs.quick, on_failure=Callback(jobs.on_failure))
        self.start(NAME)
        (member,) = connection.zrange(queue.started_job_registry.key, 0, -1)
        connection.zadd(queue.started_job_registry.key, {member: 1})
        StartedJobRegistry(queue=queue).cleanup()
        assert self.status == JobStatus.FAILED

    def start(self, name: str) -> Worker:
        worker = Worker([self.queue], connection=self.connection, name=name)
        if name == NAME:
            Fetcher(self.connection, WORKER_ID).fetch([(self.queue.key, self.queue.intermediate_queue_key)])
        else:
            assert self.queue.pop_job_id() == self.job.id
        worker.prepare_execution(self.job)
        worker.prepare_job_execution(self.job, True)
        return worker

    @property
    def status(self) -> JobStatus | None:
        return self.job.get_status(refresh=True)

    def requeue(self) -> Requeued:
        held = HeldJob(WORKER_ID, self.job.id, self.job.origin, self.queue.key)
        return requeue(self.connection, held, Why.WORKER_DIED, conf.settings())

    def undo(self) -> bool:
        return undo(self.connection, WORKER_ID, NAME, self.job.id, self.queue.name)


@pytest.fixture
def abandoned(connection: redis.Redis, queue: Queue) -> Abandoned:
    return Abandoned(connection, queue)


def test_the_failure_is_undone_once(abandoned: Abandoned) -> None:
    """Nothing of the failure is left, and the job can be requeued as any interrupted one."""
    assert abandoned.undo()
    assert not abandoned.undo()
    job = abandoned.job
    assert abandoned.status == JobStatus.STARTED
    assert job.results() == []
    assert job.exc_info is None
    assert abandoned.requeue().back
    assert balance(abandoned.connection, [job.id]).places[job.id] == ("queue:default",)


def test_a_job_that_was_requeued_meanwhile_stays_where_it_is(abandoned: Abandoned) -> None:
    """A job that a user requeued meanwhile is left alone."""
    abandoned.job.requeue()
    assert not abandoned.undo()
    assert (abandoned.status, abandoned.queue.job_ids) == (JobStatus.QUEUED, [abandoned.job.id])


def test_a_job_that_another_worker_runs_meanwhile_is_its_own(abandoned: Abandoned) -> None:
    """A job that a stock worker runs by now is no longer held by the dead worker."""
    abandoned.job.requeue()
    abandoned.start("stock")
    assert not abandoned.undo()
    assert not abandoned.connection.hexists(HOLDERS_KEY, abandoned.job.id)
    given = abandoned.requeue()
    assert given.found == "not held"
    assert abandoned.status == JobStatus.STARTED


def test_a_failure_of_the_jobs_own_stays(abandoned: Abandoned) -> None:
    """A later failure of the job's own is not undone."""
    abandoned.job.requeue()
    worker = abandoned.start("stock")
    worker.handle_job_failure(abandoned.job, abandoned.queue, exc_string="ValueError: own")
    assert not abandoned.undo()
    assert abandoned.status == JobStatus.FAILED


def test_a_reason_that_only_quotes_the_clean_up_is_the_jobs_own(connection: redis.Redis, queue: Queue) -> None:
    """A traceback that merely contains the clean-up's text is not undone."""
    abandoned = Abandoned(connection, queue)
    connection.delete(f"rq:results:{abandoned.job.id}")
    worker = Worker([queue], connection=connection, name=NAME)
    worker.handle_job_failure(
        abandoned.job, queue, exc_string="ValueError: Moved to FailedJobRegistry, due to AbandonedJobError"
    )
    assert not abandoned.undo()
    assert abandoned.status == JobStatus.FAILED


def test_the_latest_execution_is_known_whatever_has_expired(connection: redis.Redis, queue: Queue) -> None:
    """The latest execution is found although its hash has expired and its index entry has not."""
    job = queue.enqueue(jobs.quick)
    execution = Worker([queue], connection=connection, name=NAME).prepare_execution(job)
    for key in (None, execution.key, f"rq:executions:{job.id}"):
        if key:
            assert connection.delete(key)
        found = latest_execution(connection, job.id, queue.name, NAME)
        assert found is not None
        assert found.id == execution.id
        assert getattr(found, "worker_name", NAME) == NAME
    assert latest_execution(connection, f"{job.id}:x", queue.name) is None


def test_holders_that_hold_nothing_are_forgotten(connection: redis.Redis) -> None:
    """Stale entries of ``graceful:holders`` are removed, entries of registered workers are kept."""
    connection.hset(HOLDERS_KEY, mapping={"lost": "gone", "kept": "unseen", "running": "living"})
    connection.hset(HELD_KEY.format("unseen"), "job", "kept")
    connection.hset(WORKERS_KEY, "living", "{}")
    remove_stale_holders(connection)
    assert connection.hkeys(HOLDERS_KEY) == [b"kept", b"running"]
