"""Poison jobs on a real server: the evidence on the job, the list, and the way back into the queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry

from graceful import conf
from graceful.core import attempts
from graceful.core.attempts import LINE_LIMIT, MOST_ATTEMPTS, Attempt, AttemptEnd
from graceful.worker import GracefulWorker
from graceful.worker.cluster.poison import count_poison, poison_jobs, requeue_poison
from graceful.worker.queue import fail_job, requeue
from graceful.worker.queue.fetch import Fetcher
from graceful.worker.queue.requeue import ATTEMPTS_FIELD, INTERRUPTIONS_FIELD, POISON_KEY, HeldJob, Requeued, Why
from tests.support import jobs

AT = datetime(2026, 11, 25, 8, tzinfo=UTC)
COUNTERS = (INTERRUPTIONS_FIELD, "graceful_interruptions_before_progress", "graceful_interrupted_in", ATTEMPTS_FIELD)


def died(worker: str) -> Attempt:
    return Attempt(AttemptEnd.WORKER_DIED, AT, worker, "web-1", "shop.jobs.rebuild")


class Interrupted:
    """Jobs that are interrupted again and again."""

    def __init__(self, connection: redis.Redis, queue: Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.worker: Any = GracefulWorker([queue], connection=connection)

    def once(self, job: Job, worker_id: str, *, most: int = 3, policy: str | None = None, **attempt: Any) -> Requeued:
        """A worker takes the first job, starts it, and is killed."""
        Fetcher(self.connection, worker_id).fetch([(self.queue.key, self.queue.intermediate_queue_key)])
        self.connection.hset(job.key, "status", "started")
        return self.again(job, worker_id, most=most, policy=policy, **attempt)

    def again(self, job: Job, worker_id: str, *, most: int = 3, policy: str | None = None, **attempt: Any) -> Requeued:
        held = HeldJob(worker_id, job.id, job.origin, self.queue.key)
        settings = replace(conf.settings(), max_interruptions=most)
        how = died(worker_id)._replace(**attempt)
        return requeue.requeue(self.connection, held, Why.WORKER_DIED, settings, policy=policy, attempt=how)

    def poison(self, job: Job, *, times: int = 2) -> None:
        """Interrupt it too often, and fail it."""
        for number in range(times):
            given = self.once(job, f"w{number}", most=times - 1)
        assert given.must_fail
        assert fail_job.fail(self.worker, job, self.queue, None, given.interruptions, by_policy=False)

    def evidence(self, job: Job) -> list[str]:
        return [each.worker for each in attempts.load(self.connection.hget(job.key, ATTEMPTS_FIELD))]


@pytest.fixture
def interrupted(connection: redis.Redis, queue: Queue) -> Interrupted:
    return Interrupted(connection, queue)


@pytest.fixture
def job(queue: Queue) -> Job:
    return queue.enqueue(jobs.quick, 7, job_timeout=60)


def test_each_attempt_is_kept_with_the_job(interrupted: Interrupted, job: Job) -> None:
    """An attempt that counts is noted once, however often its worker's reaper tries, and only the newest are kept."""
    interrupted.once(job, "w0")
    interrupted.again(job, "w0")
    assert interrupted.evidence(job) == ["w0"]
    for number in range(1, MOST_ATTEMPTS + 3):
        interrupted.once(job, f"w{number}", most=100, stack="x" * 99_999)
    assert interrupted.evidence(job) == [f"w{number}" for number in range(3, MOST_ATTEMPTS + 3)]
    assert interrupted.connection.hstrlen(job.key, ATTEMPTS_FIELD) <= MOST_ATTEMPTS * (LINE_LIMIT + 1)


def test_whoever_fails_it_again_notes_nothing_twice(interrupted: Interrupted, job: Job) -> None:
    """A worker that dies while it fails a job leaves it held; the next one finds the same evidence."""
    assert interrupted.once(job, "w0", most=0).must_fail
    assert interrupted.again(job, "w0", most=0).must_fail
    assert interrupted.evidence(job) == ["w0"]
    assert interrupted.connection.zcard(POISON_KEY) == 1


def test_foreign_evidence_is_bounded_too(interrupted: Interrupted, job: Job) -> None:
    """What somebody else has written there does not grow further, and does no harm."""
    interrupted.connection.hset(job.key, ATTEMPTS_FIELD, "x" * 100_000)
    interrupted.once(job, "w0")
    assert interrupted.evidence(job) == ["w0"]


def test_the_job_fails_with_the_evidence(interrupted: Interrupted, job: Job) -> None:
    """The error is ``PoisonJob``, names each attempt, and stands in the failed registry's job."""
    interrupted.poison(job)
    assert job.id in FailedJobRegistry(queue=interrupted.queue)
    result = job.latest_result()
    assert result is not None
    error = str(result.exc_string)
    assert error.startswith("PoisonJob: interrupted 2 times; its worker was killed in 2 of the last 2\n1. ")
    assert "worker w0 on web-1: its worker was killed\n2. " in error
    (poison,) = poison_jobs(interrupted.connection)
    assert (poison.job_id, poison.queue, poison.interruptions) == (job.id, "default", 2)
    assert poison.function == "shop.jobs.rebuild"
    assert [each.worker for each in poison.evidence] == ["w0", "w1"]
    assert abs(poison.at.timestamp() - interrupted.connection.time()[0]) < 10
    assert count_poison(interrupted.connection) == 1


def test_a_job_that_is_to_fail_at_once_is_no_poison(interrupted: Interrupted, job: Job) -> None:
    """A policy that fails an interrupted job says nothing of the job."""
    given = interrupted.once(job, "w0", policy="fail")
    assert fail_job.fail(interrupted.worker, job, interrupted.queue, None, given.interruptions, by_policy=True)
    assert poison_jobs(interrupted.connection) == []
    assert count_poison(interrupted.connection) == 0


def test_a_requeued_job_begins_anew(interrupted: Interrupted, job: Job, queue: Queue) -> None:
    """It is at the end of its queue, off both lists, counted from 0, and runs; nothing of it was unpickled for that."""
    connection = interrupted.connection
    interrupted.poison(job)
    behind = queue.enqueue(jobs.quick)
    payload = connection.hget(job.key, "data")
    connection.hset(job.key, mapping={"data": b"no pickle", "meta": b"no pickle"})
    assert requeue_poison(connection, job.id) == "requeued"
    connection.hset(job.key, "data", payload or b"")
    connection.hdel(job.key, "meta")
    assert queue.job_ids == [behind.id, job.id]
    assert (poison_jobs(connection), count_poison(connection)) == ([], 0)
    assert job.id not in FailedJobRegistry(queue=queue)
    assert connection.hmget(job.key, COUNTERS) == [None] * len(COUNTERS)
    assert connection.ttl(job.key) == -1
    job.refresh()
    assert (job.get_status(), job.ended_at, job.worker_name) == ("queued", None, None)
    assert job.enqueued_at is not None
    queue.remove(behind)
    assert interrupted.once(job, "w9") == Requeued("given back", 1)


def test_the_time_to_live_of_a_job_is_kept(interrupted: Interrupted, queue: Queue) -> None:
    """A job that is only good for a while expires in its queue as RQ means it to."""
    job = queue.enqueue(jobs.quick, ttl=500)
    interrupted.poison(job)
    assert requeue_poison(interrupted.connection, job.id) == "requeued"
    assert 490 <= interrupted.connection.ttl(job.key) <= 500


def test_only_poison_is_requeued(interrupted: Interrupted, job: Job, queue: Queue) -> None:
    """The permission is for these jobs: no other job can be requeued by it, whatever its state."""
    connection = interrupted.connection
    assert requeue_poison(connection, job.id) == "not poison"
    assert requeue_poison(connection, "no such job") == requeue_poison(connection, "") == "not poison"
    failed = queue.enqueue(jobs.quick)
    connection.hset(failed.key, "status", "failed")
    assert requeue_poison(connection, failed.id) == "not poison"
    assert queue.job_ids == [job.id, failed.id]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "queued"}, "queued"),
        ({"status": "finished"}, "finished"),
        ({"rate_limit_key": "mail"}, "rate limited"),
        (None, "gone"),
    ],
)
def test_what_has_changed_meanwhile_is_left_alone(
    interrupted: Interrupted, job: Job, queue: Queue, change: dict[str, Any] | None, said: str
) -> None:
    """A job that somebody else has requeued or deleted, or that RQ alone can requeue, is not touched."""
    connection = interrupted.connection
    interrupted.poison(job)
    connection.hset(job.key, mapping=change) if change else connection.delete(job.key)
    before = connection.hgetall(job.key)
    assert requeue_poison(connection, job.id) == said
    assert connection.hgetall(job.key) == before
    assert queue.job_ids == []
    assert len(poison_jobs(connection)) == (said == "rate limited")
    assert bool(connection.zcard(POISON_KEY)) == (said != "gone")


def test_what_is_no_job_is_taken_off_the_list(connection: redis.Redis) -> None:
    """A foreign entry, a deleted job, and a key that is no hash are neither shown nor counted."""
    connection.zadd(POISON_KEY, {"gone": 1, b"\xff": 2, "list": 3, "hash": float("inf")})
    connection.rpush("rq:job:list", 1)
    connection.hset("rq:job:hash", mapping={"status": "failed", "origin": b"\xff", INTERRUPTIONS_FIELD: "many"})
    (poison,) = poison_jobs(connection)
    assert (poison.job_id, poison.interruptions, poison.evidence) == ("hash", 0, ())
    assert connection.zcard(POISON_KEY) == 1
    assert count_poison(connection) == 1
    assert requeue_poison(connection, "list") == "not poison"


def test_the_list_has_a_bound(interrupted: Interrupted, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest are kept; the job itself stays in RQ's failed registry."""
    monkeypatch.setattr(requeue, "MOST_POISON", 2)
    interrupted.connection.zadd(POISON_KEY, {"a": 1, "b": 2})
    interrupted.poison(job)
    assert interrupted.connection.zrange(POISON_KEY, 0, -1) == [b"b", job.id.encode()]
