"""A worker that runs jobs itself, and a job that lets no Python run beside it."""

from __future__ import annotations

import signal

import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import worker_jobs
from tests.support.waiting import wait_until

SHORT = {"GRACEFUL_TIMEOUT": 2.0, "GRACEFUL_HOOKS_TIMEOUT": 0.5, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}


def test_job_that_holds_the_gil_goes_back(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, shared_database: str
) -> None:
    """Without the companion the worker would never hear of SIGTERM, and the platform's SIGKILL would hit its job."""
    # sum() over a range is one call in C that looks at no signal and never lets go of the GIL.
    job = queue.enqueue("builtins.sum", range(10**13))
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"], settings=SHORT)
    wait_until(lambda: job.get_status() == "started", 10)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == -signal.SIGKILL
    wait_until(lambda: queue.job_ids == [job.id], 10)
    assert job.get_status() == "queued"
    assert connection.hget(job.key, "graceful_interruptions") == b"1"
    wait_until(lambda: not connection.exists("graceful:workers", "graceful:holders"), 10)


def test_companion_goes_with_its_worker(start_worker: StartWorker, queue: Queue) -> None:
    """A companion that stayed would be a process that nobody ends; the fixture fails on it."""
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"])
    assert len(worker.children()) == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert worker.children() == []


def test_job_that_ignores_its_children(start_worker: StartWorker, queue: Queue) -> None:
    """A companion that the kernel has forgotten already would turn a clean end into exit code 1."""
    job = queue.enqueue(worker_jobs.ignores_its_children)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker", "--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status(refresh=True) == "finished"
