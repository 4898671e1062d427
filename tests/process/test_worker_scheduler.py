"""``--with-scheduler``: the scheduler ends with its worker, in time, and its locks are free."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until

SETTINGS = {"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}


def scheduler_of(worker: WorkerProcess) -> int:
    """Wait for the scheduler process, and until it has its own signal handlers; returns its pid."""
    worker.wait_output("Scheduler for")
    (pid,) = wait_until(worker.children, 5)
    return pid


def locks(connection: redis.Redis) -> list[bytes]:
    found: list[bytes] = connection.keys("rq:scheduler-lock:*")
    return found


def test_it_ends_with_the_worker(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """The scheduler ends with its worker and releases its locks."""
    worker = start_worker(("default", "high"), ["--with-scheduler"], settings=SETTINGS)
    scheduler_of(worker)
    wait_until(lambda: len(locks(connection)) == 2)
    later = queue.enqueue_in(timedelta(milliseconds=10), jobs.quick)
    wait_until(lambda: later.get_status(refresh=True) == "finished", 10, lambda: worker.output)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 10, lambda: worker.output)
    worker.signal()
    # At once, not only when the job is done: nothing is to be scheduled any more.
    wait_until(lambda: locks(connection) == [], 5, lambda: worker.output)
    assert worker.running
    connection.rpush("go", 1)
    assert worker.wait(5) == 0
    assert worker.children() == []
    assert job.get_status(refresh=True) == "finished"


def test_it_is_stopped_by_a_signal_to_all(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A signal to the whole process group ends worker and scheduler."""
    worker = start_worker(options=["--with-scheduler"], settings=SETTINGS)
    scheduler_of(worker)
    began = time.monotonic()
    worker.signal_session(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 3
    assert locks(connection) == []


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_one_that_does_not_react(how: signal.Signals, connection: redis.Redis, start_worker: StartWorker) -> None:
    """A scheduler that hangs is killed, and its locks are released."""
    worker = start_worker(options=["--with-scheduler"], settings=SETTINGS)
    scheduler = scheduler_of(worker)
    wait_until(lambda: locks(connection))
    os.kill(scheduler, how)
    began = time.monotonic()
    worker.signal()
    code = worker.wait(8)
    assert time.monotonic() - began < SETTINGS["GRACEFUL_TIMEOUT"] + 0.75, worker.output
    assert code == 0, worker.output
    assert worker.children() == [], "the scheduler is left behind"
    assert locks(connection) == []


def test_redis_does_not_answer(own_valkey: Server, start_worker: StartWorker) -> None:
    """A scheduler blocked in Redis does not delay its worker."""
    worker = start_worker(options=["--with-scheduler"], settings=SETTINGS)
    scheduler_of(worker)
    own_valkey.pause()
    began = time.monotonic()
    worker.signal()
    worker.wait(10)
    assert time.monotonic() - began < SETTINGS["GRACEFUL_TIMEOUT"] + 0.75, worker.output
    wait_until(lambda: worker.children() == [], 1, lambda: worker.output)


def test_burst(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A burst worker schedules what is due, and releases the locks."""
    due = queue.enqueue_in(timedelta(milliseconds=1), jobs.quick)
    let_pass(1.1, "the job is due; RQ's scheduler looks at whole seconds")
    worker = start_worker(options=["--with-scheduler", "--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert due.get_status(refresh=True) == "finished"
    assert locks(connection) == []
