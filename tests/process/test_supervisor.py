"""A worker that runs jobs itself, and a job that lets no Python run beside it."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from rq import Queue

from graceful.core.phases import HookOutcome, JobOutcome
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.processes import cpu_seconds, is_alive
from tests.support.reports import report_of
from tests.support.waiting import wait_until

SHORT = {"GRACEFUL_TIMEOUT": 2.0, "GRACEFUL_HOOKS_TIMEOUT": 0.5, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
NAPPING = {
    "GRACEFUL_TIMEOUT": 4.0,
    "GRACEFUL_HOOKS_TIMEOUT": 3.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.5,
    "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.naps"],
}
"""The exit hook goes on for a second after the hard limit."""


def test_job_that_holds_the_gil_goes_back(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, shared_database: str
) -> None:
    """If a job holds the GIL at SIGTERM, the supervisor ends the worker in time and requeues the job."""
    # sum() over a range is one call in C that looks at no signal and never lets go of the GIL.
    job = queue.enqueue("builtins.sum", range(10**13))
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"], settings=SHORT)
    wait_until(lambda: job.get_status() == "started", 10)
    # A signal that comes before sum() has the GIL is heard, and then the worker's own watchdog ends it, by exit code 1.
    before = cpu_seconds(worker.pid)
    wait_until(lambda: cpu_seconds(worker.pid) > before + 0.3, 10)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == -signal.SIGKILL
    wait_until(lambda: queue.job_ids == [job.id], 10)
    assert job.get_status() == "queued"
    assert connection.hget(job.key, "graceful_interruptions") == b"1"
    wait_until(lambda: not connection.exists("graceful:workers", "graceful:holders"), 10)


def test_supervisor_ends_with_its_worker(start_worker: StartWorker, queue: Queue) -> None:
    """The supervisor ends with its worker."""
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"])
    assert len(worker.children()) == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert worker.children() == []


def test_job_that_ignores_its_children(start_worker: StartWorker, queue: Queue) -> None:
    """A job that ignores SIGCHLD does not change the exit code."""
    job = queue.enqueue(worker_jobs.ignores_its_children)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker", "--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status(refresh=True) == "finished"


def test_job_that_does_not_end_is_not_given_back_while_it_runs(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis
) -> None:
    """A job is requeued only after its process has ended."""
    job = queue.enqueue(jobs.stubborn, 60)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"], settings=NAPPING)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: worker.output)
    rival = start_worker(name="rival")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: int(connection.hget(jobs.STARTED, job.id) or 0) == 2, 15, lambda: rival.output)
    assert not is_alive(worker.pid), worker.output
    assert worker.wait(5) == os.EX_TEMPFAIL
    (hook,) = report_of(connection, worker).hooks
    assert (hook.outcome, hook.detail) == (HookOutcome.OK, "napped")


@pytest.mark.parametrize(("most", "outcome"), [(3, JobOutcome.KILLED), (0, JobOutcome.INTERRUPTION_FAILED)])
def test_report_says_what_became_of_a_job_that_did_not_end(
    most: int, outcome: JobOutcome, start_worker: StartWorker, queue: Queue, connection: redis.Redis
) -> None:
    """The report has the final outcome of a job that outlived its worker's hooks."""
    job = queue.enqueue(jobs.stubborn, 60)
    worker = start_worker(
        options=["--worker-class", "rq.SimpleWorker"], settings=SHORT | {"GRACEFUL_MAX_INTERRUPTIONS": most}
    )
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: worker.output)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    wait_until(lambda: not worker.children(), 10, lambda: worker.output)
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert (in_flight.id, in_flight.outcome, in_flight.interruptions) == (job.id, outcome, 1)
    assert "in stubborn" in in_flight.stack
    assert job.get_status(refresh=True) == ("queued" if most else "failed")
    assert not connection.exists("graceful:workers", "graceful:holders")
