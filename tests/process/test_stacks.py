"""SIGTTIN logs the stacks whatever a worker is at."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from rq import Queue

from graceful.worker.shutdown.os_signals import RECORD_SECONDS
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.waiting import let_pass, wait_until

LONG = {"GRACEFUL_TIMEOUT": 30.0, "GRACEFUL_HOOKS_TIMEOUT": 10.0, "GRACEFUL_INTERRUPT_TIMEOUT": 15.0}


def asked(worker: WorkerProcess) -> str:
    """Ask once; what was logged of it, the horse's stacks included if there is a horse."""
    let_pass(2 * RECORD_SECONDS, "a signal that follows the one before sooner is none")
    before = len(worker.output)
    worker.signal(signal.SIGTTIN)
    wait_until(lambda: "stacks of the worker\n" in worker.output[before:], 5, lambda: worker.output)
    return worker.output[before:]


def test_while_draining(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Worker and horse, as often as one asks, and the job's time is not cut by it."""
    worker = start_worker(settings=LONG)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    worker.signal()
    wait_until(lambda: report_of(connection, worker).phase == "draining")
    for times in (1, 2):
        asked(worker)
        wait_until(lambda times=times: worker.output.count("in until_released") == times)  # type: ignore[misc]
    connection.rpush("go", 1)
    assert worker.wait() == 0
    assert job.get_status(refresh=True) == "finished"


def test_while_quiet(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A quiet worker tells, and stays quiet."""
    worker = start_worker()
    worker.signal(signal.SIGTSTP)
    worker.wait_state("suspended")
    assert "hold_off" in asked(worker)
    assert report_of(connection, worker).quiet


@pytest.mark.parametrize("worker_class", ["rq.worker.Worker", "rq.worker.SimpleWorker"])
def test_in_an_exit_hook(connection: redis.Redis, start_worker: StartWorker, worker_class: str) -> None:
    """The hook that runs is in the main thread's stack; a SIGTERM beside it changes nothing of its end."""
    settings = {**LONG, "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.naps_long"]}
    worker = start_worker(settings=settings, options=["--worker-class", worker_class])
    worker.signal()
    wait_until(lambda: "naps_long" in report_of(connection, worker).notes)
    for _ in range(2):
        assert "in naps_long" in asked(worker)
    worker.signal()
    assert "in naps_long" in asked(worker)
    assert "did not act upon a signal" not in worker.output
    assert worker.wait() == os.EX_OK
    assert [hook.outcome for hook in report_of(connection, worker).hooks] == ["ok"]


def test_in_a_job_without_a_horse(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """The job of a SimpleWorker is in the stacks of its worker, also while it stands in one C call."""
    worker = start_worker(options=["--worker-class", "rq.worker.SimpleWorker"])
    job = queue.enqueue(jobs.sleeping, 30)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    assert "in sleeping" in asked(worker)


def test_in_a_hook_that_stands_in_c_code(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A hook in a C call that no signal interrupts keeps the main thread from its handlers, and not us from the log."""
    settings = {**LONG, "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.stands_in_c_code"]}
    worker = start_worker(settings=settings)
    worker.signal()
    wait_until(lambda: "stands_in_c_code" in report_of(connection, worker).notes)
    assert "in stands_in_c_code" in asked(worker)
    assert worker.wait() == os.EX_OK
