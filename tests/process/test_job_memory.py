"""Jobs that need more memory than ``GRACEFUL_JOB_MEMORY`` allows."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.job import Job

from graceful.core.phases import JobOutcome
from tests.conftest import StartWorker
from tests.support import jobs, memory_jobs
from tests.support.reports import report_of
from tests.support.waiting import wait_until

LIMIT = 300
SETTINGS = {"GRACEFUL_JOB_MEMORY": LIMIT, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
SIMPLE = ("--worker-class", "rq.SimpleWorker")
SPAWN = ("--worker-class", "rq.worker.SpawnWorker")


def ended(job: Job) -> str:
    status = job.get_status(refresh=True)
    return "" if status in ("queued", "started", None) else str(status.value)  # type: ignore[union-attr]


def error_of(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


@pytest.mark.parametrize("options", [(), SPAWN, SIMPLE], ids=["fork", "spawn", "simple"])
def test_a_job_with_too_much_memory_fails(
    options: tuple[str, ...], connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Its error names function, size and limit; callback and ``Retry`` are those of a failure; the worker goes on."""
    large = queue.enqueue(memory_jobs.keeps, LIMIT + 50, on_failure=Callback(jobs.on_failure), retry=Retry(max=1))
    small = queue.enqueue(jobs.quick, 7)
    worker = start_worker(options=options, settings=SETTINGS)
    wait_until(lambda: ended(large) and ended(small), 30, lambda: worker.output)
    assert (ended(large), ended(small)) == ("failed", "finished")
    assert connection.hget(jobs.STARTED, large.id) == b"2"
    error = error_of(large)
    assert "Traceback" in error
    assert 'memory_jobs.py", line' in error
    assert "JobMemoryExceeded: tests.support.memory_jobs.keeps has " in error
    assert f"GRACEFUL_JOB_MEMORY allows {LIMIT} MB" in error
    # RQ calls it at each try.
    assert connection.lrange(jobs.CALLED, 0, -1) == [f"failure:{large.id}".encode()] * 2
    assert connection.hget(large.key, "graceful_interruptions") is None
    worker.wait_state("idle")
    worker.signal()
    assert worker.wait() == 0
    assert report_of(connection, worker).jobs.in_flight == ()


def test_a_job_that_does_not_end_is_killed(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """After ``GRACEFUL_INTERRUPT_TIMEOUT`` its process is killed; it fails with the same error and where it stood."""
    large = queue.enqueue(memory_jobs.keeps_stubbornly, LIMIT + 50)
    small = queue.enqueue(jobs.quick, 7)
    worker = start_worker(settings=SETTINGS)
    wait_until(lambda: ended(large) and ended(small), 30, lambda: worker.output)
    assert (ended(large), ended(small)) == ("failed", "finished")
    error = error_of(large)
    assert "JobMemoryExceeded: tests.support.memory_jobs.keeps_stubbornly has " in error
    assert error.rstrip().endswith("it did not end for that, and was killed")
    assert "memory_jobs.py" in error
    assert connection.hget(large.key, "graceful_interruptions") is None
    assert not connection.zcard("rq:wip:default")
    worker.wait_state("idle")
    worker.signal()
    assert worker.wait() == 0


def test_a_killed_job_is_retried_as_it_asks_for(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Killed for its memory is failed: ``Retry`` starts it again."""
    large = queue.enqueue(memory_jobs.keeps_stubbornly, LIMIT + 50, retry=Retry(max=1))
    worker = start_worker(settings=SETTINGS)
    wait_until(lambda: ended(large), 30, lambda: worker.output)
    assert connection.hget(jobs.STARTED, large.id) == b"2"


def test_a_simple_worker_answers_for_what_a_job_has_taken(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """What earlier jobs have left behind in the process fails no later one."""
    enqueued = [queue.enqueue(memory_jobs.leaks, 200) for _ in range(3)]
    worker = start_worker(options=(*SIMPLE, "--burst"), settings=SETTINGS, wait=False)
    assert worker.wait(40) == 0
    assert [ended(job) for job in enqueued] == ["finished"] * 3


def test_a_shutdown_does_not_requeue_it(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A stop while the job is being failed for its memory waits for that, and finds it failed."""
    large = queue.enqueue(memory_jobs.keeps_stubbornly, LIMIT + 50)
    worker = start_worker(settings={**SETTINGS, "GRACEFUL_INTERRUPT_TIMEOUT": 2.0})
    worker.wait_output("above GRACEFUL_JOB_MEMORY of 300 MB, failing it")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == os.EX_OK
    assert ended(large) == "failed"
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.FAILED
    assert queue.job_ids == []
