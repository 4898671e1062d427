"""The horse: what may be done to it, what it may do to its worker, and classes that run jobs in another way."""

from __future__ import annotations

import os

import pytest
import redis
from rq import Queue
from rq.job import Job

from graceful.core.phases import JobOutcome
from tests.conftest import StartWorker
from tests.process.test_worker_jobs import wait_status
from tests.support import horse_workers, jobs
from tests.support.books import balance
from tests.support.reports import report_of
from tests.support.waiting import wait_until

MODULE = "tests.support.horse_workers"
SHORT = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}


def test_a_job_stopped_before_its_horse_is_forked(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that is stopped before it has a horse becomes "stopped", and its worker goes on with the next."""
    stopped = [queue.enqueue(jobs.napping, 30) for _ in range(5)]
    worker = start_worker(options=["--worker-class", f"{MODULE}.StoppedAtFork"])
    for job in stopped:
        wait_status(worker, job, "stopped")
    assert worker.running
    assert all(connection.hget(jobs.FINISHED, job.id) is None for job in stopped)


def test_a_horse_in_the_group_of_its_worker(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job that joined its worker's process group is killed at the hard limit, and its worker is not."""
    job = queue.enqueue(horse_workers.joins_the_worker, 30)
    worker = start_worker(settings=SHORT)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 20, lambda: worker.output)
    worker.signal()
    assert worker.wait(8) == os.EX_TEMPFAIL, worker.output
    assert [each.outcome for each in report_of(connection, worker).jobs.in_flight] == [JobOutcome.KILLED]
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}
