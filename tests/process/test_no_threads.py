"""The limit of threads and processes is reached: the end goes on without those that it cannot have."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq import Queue

from graceful.core.phases import JobOutcome, Reason
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.waiting import wait_until
from tests.support.worker_hooks import notes

TIMEOUT = 5.0
SETTINGS = {
    "GRACEFUL_TIMEOUT": TIMEOUT,
    "GRACEFUL_HOOKS_TIMEOUT": 2.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.5,
    "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.exit_note"],
}
CLASSES = ["StarvableWorker", "StarvableSimpleWorker"]

Starved = Callable[..., WorkerProcess]


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path) -> Starved:
    """Start a worker that can be starved."""

    def start_starvable(worker_class: str, **settings: object) -> WorkerProcess:
        return start_worker(
            options=["--worker-class", f"tests.support.starved.{worker_class}"],
            settings=SETTINGS | settings,
            environment={"TEST_NOTES": str(tmp_path / "notes")},
        )

    return start_starvable


def starve(worker: WorkerProcess) -> None:
    """Leave a running worker without any further thread or process."""
    worker.signal(signal.SIGUSR2)
    worker.wait_output("starved")


def running(connection: redis.Redis, job_id: str) -> bool:
    return bool(connection.hget(jobs.PIDS, job_id))


@pytest.mark.parametrize("worker_class", CLASSES)
def test_idle(worker_class: str, start: Starved, connection: redis.Redis, tmp_path: Path) -> None:
    """An idle worker runs its exit hooks, seals its report and ends with its exit code."""
    worker = start(worker_class)
    starve(worker)
    worker.signal()
    assert worker.wait(TIMEOUT + 5) == os.EX_OK, worker.output
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code, [hook.outcome for hook in report.hooks]) == ("clean", 0, ["ok"])
    assert len(notes(tmp_path / "notes", "exit")) == 1
    assert not connection.exists("graceful:workers")
    assert not connection.smembers("rq:workers")


@pytest.mark.parametrize("worker_class", CLASSES)
def test_busy_with_a_job_that_ends_in_time(
    worker_class: str, start: Starved, connection: redis.Redis, queue: Queue
) -> None:
    """A job in flight is finished, then the worker ends as ever."""
    job = queue.enqueue(jobs.until_released, "go")
    worker = start(worker_class)
    wait_until(lambda: running(connection, job.id), 10, lambda: worker.output)
    starve(worker)
    worker.signal()
    worker.wait_output("shutdown requested")
    connection.rpush("go", 1)
    assert worker.wait(TIMEOUT + 5) == os.EX_OK, worker.output
    report = report_of(connection, worker)
    assert [(each.id, each.outcome) for each in report.jobs.in_flight] == [(job.id, JobOutcome.FINISHED)]
    assert (report.outcome, report.exit_code, [hook.outcome for hook in report.hooks]) == ("clean", 0, ["ok"])


@pytest.mark.parametrize("worker_class", CLASSES)
@pytest.mark.parametrize("what", ["idles", "stubborn"])
def test_busy_with_a_job_that_does_not_end(
    what: str, worker_class: str, start: Starved, connection: redis.Redis, queue: Queue
) -> None:
    """A job that has to be interrupted or killed is requeued within the grace period."""
    job = queue.enqueue({"idles": worker_jobs.idles, "stubborn": jobs.stubborn}[what], 60)
    worker = start(worker_class)
    wait_until(lambda: running(connection, job.id), 10, lambda: worker.output)
    starve(worker)
    began = time.monotonic()
    worker.signal()
    assert worker.wait(TIMEOUT + 5) == os.EX_TEMPFAIL, worker.output
    assert time.monotonic() - began < TIMEOUT + 0.75, worker.output
    wait_until(lambda: not worker.children(), 10, lambda: worker.output)  # A simple worker's requeues the job.
    report = report_of(connection, worker)
    outcome = {"idles": JobOutcome.INTERRUPTED, "stubborn": JobOutcome.KILLED}[what]
    assert [(each.id, each.outcome) for each in report.jobs.in_flight] == [(job.id, outcome)]
    assert (report.exit_code, [hook.outcome for hook in report.hooks]) == (os.EX_TEMPFAIL, ["ok"])
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


def test_a_work_horse_that_cannot_be_forked(start: Starved, connection: redis.Redis, queue: Queue) -> None:
    """The job is requeued uncounted, and the worker ends with a report that says why, instead of eating its queue."""
    worker = start("StarvableWorker")
    starve(worker)
    enqueued = [queue.enqueue(jobs.quick) for _ in range(3)]
    code = worker.wait(TIMEOUT + 5)
    report = report_of(connection, worker)
    assert (code, report.reason, report.exit_code) == (os.EX_SOFTWARE, Reason.ERROR, os.EX_SOFTWARE), worker.output
    assert [hook.outcome for hook in report.hooks] == ["ok"]
    assert queue.job_ids == [job.id for job in enqueued]
    assert not connection.hget(enqueued[0].key, "graceful_interruptions")


def test_a_simple_worker_goes_on_with_its_jobs(start: Starved, connection: redis.Redis, queue: Queue) -> None:
    """Jobs that need no process of their own are done as ever."""
    worker = start("StarvableSimpleWorker")
    starve(worker)
    enqueued = [queue.enqueue(jobs.quick) for _ in range(3)]
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in enqueued), 10, lambda: worker.output)
    worker.signal()
    assert worker.wait(TIMEOUT + 5) == report_of(connection, worker).exit_code == os.EX_OK, worker.output
