"""Putting a job back, in one step: only what is held, only what is not done, at the front, and once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job, JobStatus

from graceful import conf
from graceful.worker.queue.fetch import HOLDERS_KEY, Fetcher
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD, NOT_ONCE, HeldJob, Requeued, Why, requeue
from tests.support import jobs
from tests.support.job_accounting import balance

WORKER_ID = "worker-id"


class Held:
    """A job that a worker has taken, and perhaps started."""

    def __init__(self, connection: redis.Redis, queue: Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.worker = Worker([queue], connection=connection, name="holder")
        self.job: Job = queue.enqueue(jobs.quick)
        self.behind: Job = queue.enqueue(jobs.quick)
        self.execution: Execution | None = None
        self.fetcher = Fetcher(connection, WORKER_ID)
        assert self.fetch()

    def fetch(self) -> bool:
        """Take the first job of the queue."""
        return self.fetcher.fetch([(self.queue.key, self.queue.intermediate_queue_key)]) is not None

    def start(self) -> None:
        """As the worker and then its horse do it."""
        self.execution = self.worker.prepare_execution(self.job)
        self.worker.prepare_job_execution(self.job, True)

    def requeue(self, most: int | None = None, worker_id: str = WORKER_ID) -> Requeued:
        """Requeue it: uncounted, as an interrupted one of which so many are allowed, or one that is to fail."""
        held = HeldJob(worker_id, self.job.id, self.job.origin, self.queue.key, self.execution)
        why = Why.NOT_STARTED if most is None else Why.INTERRUPTED
        settings = replace(conf.settings(), max_interruptions=max(0, most or 0))
        return requeue(self.connection, held, why, settings, policy="fail" if most == NOT_ONCE else None)

    @property
    def places(self) -> tuple[str, ...]:
        return balance(self.connection, [self.job.id]).places[self.job.id]

    @property
    def interruptions(self) -> int:
        return int(self.connection.hget(self.job.key, INTERRUPTIONS_FIELD) or 0)


@pytest.fixture
def held(connection: redis.Redis, queue: Queue) -> Held:
    return Held(connection, queue)


def test_a_job_that_was_only_taken(held: Held) -> None:
    """A job that was fetched and not started goes back to the front of its queue, uncounted."""
    assert held.requeue() == Requeued("given back", 0)
    assert held.connection.lrange(held.queue.key, 0, -1) == [held.job.id.encode(), held.behind.id.encode()]
    assert held.connection.llen(held.queue.intermediate_queue_key) == 0
    assert held.connection.hlen(HOLDERS_KEY) == 0


def test_a_job_that_was_running(held: Held) -> None:
    """A running job goes to the front of its queue, leaves RQ's registries, and is counted as interrupted."""
    held.start()
    assert held.places == ("started:default",)
    assert held.requeue(3) == Requeued("given back", 1)
    assert held.places == ("queue:default",)
    held.job.refresh()
    assert held.job.get_status() == JobStatus.QUEUED
    assert held.job.worker_name is None
    assert held.interruptions == 1
    assert held.connection.keys("rq:execution*") == []
    assert held.connection.ttl(held.job.key) == -1
    assert held.connection.lindex(held.queue.key, 0) == held.job.id.encode()


def test_a_job_that_has_had_its_turn(held: Held) -> None:
    """A job that makes room for others goes to the end of its queue, uncounted."""
    held.start()
    kept = HeldJob(WORKER_ID, held.job.id, held.job.origin, held.queue.key, held.execution)
    # As one that is not allowed a single interruption, and is to fail for one.
    settings = replace(conf.settings(), max_interruptions=0)
    assert requeue(held.connection, kept, Why.YIELDED, settings, policy="fail") == Requeued("given back", 0)
    assert held.queue.job_ids == [held.behind.id, held.job.id]
    assert held.places == ("queue:default",)
    assert not held.connection.hexists(held.job.key, "graceful_attempts")


def test_twice_is_once(held: Held) -> None:
    """A repeated requeue puts the job into its queue once."""
    held.start()
    assert held.requeue(3).back
    assert held.requeue(3) == Requeued("in its queue", 1)
    assert held.queue.count == 2
    assert held.interruptions == 1


def test_another_worker_has_it_already(held: Held) -> None:
    """A late requeue leaves a job alone that another worker holds."""
    held.start()
    assert held.requeue(3).back
    assert Fetcher(held.connection, "other").fetch([(held.queue.key, held.queue.intermediate_queue_key)])
    held.worker.prepare_execution(held.job)
    before = held.places
    assert held.requeue(3) == Requeued("not held", 1)
    assert held.places == before
    assert held.connection.hget(HOLDERS_KEY, held.job.id) == b"other"


@pytest.mark.parametrize("status", ["finished", "failed", "stopped", "canceled", "scheduled", "deferred"])
def test_a_job_that_came_to_its_end_in_the_last_instant(held: Held, status: str) -> None:
    """A job that has ended is not requeued."""
    held.start()
    held.job.set_status(JobStatus(status))
    if status == "scheduled":
        held.queue.schedule_job(held.job, datetime.now(UTC) + timedelta(hours=1))
    found = held.requeue(3)
    assert (found.found, found.back) == (status, False)
    assert held.job.get_status(refresh=True) == status
    assert held.queue.count == 1
    assert held.interruptions == 0


def test_a_retry_that_was_cut_short(held: Held) -> None:
    """A job whose status is already that of its retry, and which RQ has not scheduled yet, is requeued."""
    held.start()
    held.job.set_status(JobStatus.SCHEDULED)
    assert held.requeue(3) == Requeued("given back", 1)
    assert held.places == ("queue:default",)
    assert held.job.get_status(refresh=True) == JobStatus.QUEUED


def test_a_job_that_was_requeued_by_its_own_retry(held: Held) -> None:
    """A job that its own retry has scheduled is not requeued again."""
    held.start()
    held.job.set_status(JobStatus.QUEUED)
    held.connection.rpush(held.queue.key, held.job.id)
    assert held.requeue(3).found == "in its queue"
    assert held.connection.lrange(held.queue.key, 0, -1) == [held.behind.id.encode(), held.job.id.encode()]
    assert held.interruptions == 0


def test_a_job_that_was_deleted(held: Held) -> None:
    """A deleted job is not put back into its queue."""
    held.start()
    held.job.delete()
    assert held.requeue(3) == Requeued("gone", 0)
    assert held.queue.count == 1
    assert not held.connection.exists(held.job.key)
    assert held.connection.hlen(HOLDERS_KEY) == 0


@pytest.mark.parametrize("most", [0, 1, 3])
def test_too_many(held: Held, most: int) -> None:
    """A job is requeued up to the limit of interruptions, and not beyond."""
    for number in range(1, most + 1):
        held.start()
        assert held.requeue(most) == Requeued("given back", number)
        assert held.fetch()
    held.start()
    found = held.requeue(most)
    assert (found.found, found.must_fail, found.interruptions) == ("too many", True, most + 1)
    assert held.places == ()
    # Whoever was to fail it may die over its failure callback: the next one finds the same.
    assert held.requeue(most) == found


def test_not_once(held: Held) -> None:
    """A job whose policy is to fail is not requeued."""
    held.start()
    found = held.requeue(NOT_ONCE)
    assert found.must_fail
    assert held.places == ()


@given(
    st.lists(
        st.sampled_from(["fetch", "start", "finish", "give back", "give back uncounted", "as other", "delete"]),
        max_size=12,
    )
)
@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_whatever_order_a_job_is_in_one_place(connection: redis.Redis, queue: Queue, steps: list[str]) -> None:
    """In every order of events a job is in exactly one place, and other holders are untouched."""
    connection.flushall()
    held = Held(connection, queue)
    connection.lrem(queue.key, 0, held.behind.id)
    current_job, deleted = True, False
    for step in steps:
        if step == "fetch" and not current_job:
            current_job = held.fetch()
            held.execution = None
        elif step == "start" and current_job and held.execution is None and not deleted:
            held.start()
        elif step == "finish" and current_job and held.execution is not None and not deleted:
            with connection.pipeline() as pipeline:
                _cleanup(held, pipeline)
                held.job.set_status(JobStatus.FINISHED, pipeline=pipeline)
                queue.finished_job_registry.add(held.job, 500, pipeline=pipeline)
                pipeline.execute()
        elif step.startswith("give back"):
            held.requeue(1000 if step == "give back" else None)
            current_job = False
        elif step == "as other":
            before = _snapshot(connection, held)
            held.requeue(1000, worker_id="another")
            assert _snapshot(connection, held) == before
        elif step == "delete" and not current_job and not deleted:
            held.job.delete()
            deleted = True
        places = held.places
        assert len(places) <= 1, f"{places} after {step}"
        if not deleted:
            assert places, f"lost after {step}"
        if not current_job:
            assert places in ((), ("queue:default",), ("finished:default",))


def _cleanup(held: Held, pipeline: Any) -> None:
    assert held.execution is not None
    held.execution.delete(held.job, pipeline=pipeline)


def _snapshot(connection: redis.Redis, held: Held) -> tuple[Any, ...]:
    return held.places, connection.hgetall(held.job.key), connection.hgetall(HOLDERS_KEY)
