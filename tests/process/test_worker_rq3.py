"""What RQ 3 adds to a job keeps working when a shutdown interrupts it: rate limits, groups, unique jobs, repeats."""

from __future__ import annotations

import rq
from redis import Redis
from rq import Queue

from tests.conftest import StartWorker
from tests.process.test_worker_interruption import stop_in
from tests.support import jobs
from tests.support.waiting import wait_until

RELEASE = "tests:release"
RQ_3 = int(rq.VERSION.split(".")[0]) >= 3

if RQ_3:
    from rq import Repeat
    from rq.exceptions import DuplicateJobError
    from rq.group import Group
    from rq.rate_limit import RateLimit, RateLimitRegistry

    def finish(start_worker: StartWorker) -> None:
        worker = start_worker(options=["--burst"], wait=False)
        assert worker.wait(30) == 0, worker.output

    def test_an_interrupted_job_keeps_its_slot(connection: Redis, queue: Queue, start_worker: StartWorker) -> None:
        """An interrupted job keeps its rate limit slot until it has ended."""
        limit = RateLimit("shop", concurrency=1)
        first = queue.enqueue(jobs.until_released, RELEASE, rate_limit=limit)
        second = queue.enqueue(jobs.quick, rate_limit=limit)
        registry = RateLimitRegistry("shop", connection)
        stop_in(first.id, connection, start_worker)
        assert queue.job_ids == [first.id]
        assert registry.get_allowed_job_ids() == [first.id]
        assert registry.get_rate_limited_job_ids() == [second.id]
        connection.rpush(RELEASE, 1)
        finish(start_worker)
        wait_until(lambda: second.get_status() == "finished", 10)
        assert first.get_status() == "finished"
        assert registry.get_allowed_job_ids() == []

    def test_an_interrupted_job_stays_in_its_group(connection: Redis, queue: Queue, start_worker: StartWorker) -> None:
        """An interrupted job stays in its group."""
        group = Group.create(connection)
        [job] = group.enqueue_many(queue, [Queue.prepare_data(jobs.napping, args=(30,))])
        stop_in(job.id, connection, start_worker)
        assert [each.id for each in group.get_jobs()] == [job.id]
        assert queue.job_ids == [job.id]

    def test_an_interrupted_job_stays_unique(connection: Redis, queue: Queue, start_worker: StartWorker) -> None:
        """While an interrupted job is queued, no second job of its id can be enqueued as unique."""
        job = queue.enqueue(jobs.napping, 30, job_id="only-once", unique=True)
        stop_in(job.id, connection, start_worker)
        assert queue.job_ids == ["only-once"]
        try:
            queue.enqueue(jobs.napping, 30, job_id="only-once", unique=True)
        except DuplicateJobError:
            pass
        else:
            raise AssertionError("a second job of the same id was enqueued")
        assert queue.job_ids == ["only-once"]

    def test_an_interrupted_job_keeps_its_repeats(connection: Redis, queue: Queue, start_worker: StartWorker) -> None:
        """An interruption uses up no repeat."""
        job = queue.enqueue(jobs.until_released, RELEASE, repeat=Repeat(times=2, interval=1000))
        stop_in(job.id, connection, start_worker)
        job.refresh()
        assert job.repeats_left == 2
        connection.rpush(RELEASE, 1)
        finish(start_worker)
        job.refresh()
        assert job.repeats_left == 1
        assert job.id in queue.scheduled_job_registry.get_job_ids()
