"""A simple worker that had to leave its job behind, and what its supervisor makes of that."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from django_rq import get_queue
from rq import Callback, Queue

from graceful.core.phases import HookOutcome, JobOutcome, Outcome
from graceful.core.records import InFlightJob, ShutdownReport
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until

SHORT = {"GRACEFUL_TIMEOUT": 2.0, "GRACEFUL_HOOKS_TIMEOUT": 0.5, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
SIMPLE = ["--worker-class", "rq.SimpleWorker"]
NAPS = "tests.support.worker_hooks.naps"
LATE = 0.5
"""Other tests keep the machine busy; the storm and the chaos suite measure without."""


@pytest.fixture
def stopped(start_worker: StartWorker, connection: redis.Redis) -> Callable[..., WorkerProcess]:
    """Start a simple worker, ask it to stop when its job runs."""

    def start_and_stop(
        job_id: str, name: str | None = None, options: Sequence[str] = SIMPLE, **settings: Any
    ) -> WorkerProcess:
        worker = start_worker(options=options, settings=SHORT | settings, name=name)
        wait_until(lambda: connection.hget(jobs.PIDS, job_id), 10, lambda: worker.output)
        worker.signal(signal.SIGTERM)
        return worker

    return start_and_stop


def last_word(connection: redis.Redis, worker: WorkerProcess) -> tuple[ShutdownReport, InFlightJob]:
    """The report when the supervisor is done, and the one job in it."""
    wait_until(lambda: not worker.children(), 12, lambda: worker.output)
    report = report_of(connection, worker)
    (in_flight,) = report.jobs.in_flight
    return report, in_flight


def test_a_job_that_had_finished_is_finished(
    stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue
) -> None:
    """A finished job whose horse exit hook hangs is reported as finished."""
    job = queue.enqueue(jobs.napping, 0.3)
    hook = {"call": "tests.support.worker_hooks.swallows_everything", "timeout": 20}
    worker = stopped(job.id, GRACEFUL_HORSE_EXIT_HOOKS=[hook])
    worker.wait(10)
    report, in_flight = last_word(connection, worker)
    assert job.get_status(refresh=True) == "finished"
    assert (in_flight.outcome, report.jobs.finished, report.outcome) == (JobOutcome.FINISHED, 1, Outcome.CLEAN)
    assert worker.exit_code == os.EX_OK, worker.output


def test_a_job_that_was_interrupted_is_not_given_up_over_its_horse_exit_hook(
    stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue
) -> None:
    """A job interrupted before its horse exit hook hung is reported as interrupted, with its stack."""
    job = queue.enqueue(worker_jobs.idles, 60)
    hook = {"call": "tests.support.worker_hooks.tidies_up", "timeout": 20}
    worker = stopped(job.id, GRACEFUL_HORSE_EXIT_HOOKS=[hook])
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    _, in_flight = last_word(connection, worker)
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.INTERRUPTED, 1), worker.output
    assert "in idles" in in_flight.stack


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_somebody_ended_meanwhile(
    how: str, stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue
) -> None:
    """A job that a user cancelled or deleted before the shutdown ended it is reported as such."""
    job = queue.enqueue(jobs.stubborn, 60)
    worker = stopped(job.id)
    getattr(job, how)()
    worker.wait(10)
    _, in_flight = last_word(connection, worker)
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.CANCELED, 0)
    assert queue.job_ids == []
    assert not connection.exists("graceful:workers", "graceful:holders")


def test_a_failure_callback_that_sleeps(
    stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue
) -> None:
    """A failure callback that sleeps is killed; the job fails, and the callback runs once."""
    job = queue.enqueue(jobs.stubborn, 60, on_failure=Callback(worker_jobs.failed_and_sleeps))
    worker = stopped(job.id, GRACEFUL_MAX_INTERRUPTIONS=0)
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    _, in_flight = last_word(connection, worker)
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.INTERRUPTION_FAILED, 1)
    assert job.get_status(refresh=True) == "failed"
    assert connection.lrange(jobs.CALLED, 0, -1) == [f"failure:{job.id}".encode()]


def test_a_failure_callback_that_holds_the_gil(
    stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """The supervisor calls it in a child, which is killed, and fails the job; the next worker finds nothing to do."""
    job = queue.enqueue(jobs.stubborn, 60, on_failure=Callback(worker_jobs.failed_and_hangs))
    worker = stopped(job.id, GRACEFUL_MAX_INTERRUPTIONS=0)
    worker.wait(10)
    wait_until(lambda: not worker.children(), 12, lambda: worker.output)
    assert job.get_status(refresh=True) == "failed", worker.output
    assert (
        start_worker(options=["--burst"], settings={"GRACEFUL_MAX_INTERRUPTIONS": 0}, wait=False).wait(20) == os.EX_OK
    )
    _, in_flight = last_word(connection, worker)
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.INTERRUPTION_FAILED, 1)


def test_a_worker_of_the_same_name_stays_registered(
    stopped: Callable[..., WorkerProcess], start_worker: StartWorker, connection: redis.Redis, queue: Queue
) -> None:
    """The old worker's supervisor leaves a new worker of the same name registered."""
    job = queue.enqueue(jobs.stubborn, 60, on_failure=Callback(worker_jobs.failed_slowly))
    first = stopped(job.id, name="same", GRACEFUL_MAX_INTERRUPTIONS=0)
    first.wait(10)
    second = start_worker(name="same", wait=False)
    wait_until(lambda: connection.hget("rq:worker:same", "pid") == str(second.pid).encode(), 15, lambda: second.output)
    wait_until(lambda: not first.children(), 12, lambda: first.output)
    assert second.running
    assert connection.sismember("rq:workers", "rq:worker:same")
    assert connection.hget("rq:worker:same", "pid") == str(second.pid).encode()


@pytest.mark.parametrize(
    ("hook", "callback", "status", "outcome"),
    [
        (NAPS, None, "finished", JobOutcome.FINISHED),
        (NAPS, Callback(worker_jobs.fails_after_success), "failed", JobOutcome.FAILED),
        # The thread that decided about the job hangs in it, and another one ends the process.
        ({"call": "tests.support.worker_hooks.hanging", "timeout": 0.8}, None, "finished", JobOutcome.FINISHED),
    ],
    ids=["finished", "failed", "the hook hangs"],
)
def test_a_job_that_ends_after_the_hard_limit(
    hook: object,
    callback: Callback | None,
    status: str,
    outcome: JobOutcome,
    stopped: Callable[..., WorkerProcess],
    connection: redis.Redis,
    queue: Queue,
) -> None:
    """A job that comes to its end before its worker's process does stores it, is waited for, and does not run again."""
    job = queue.enqueue(jobs.stubborn, 1.5, on_success=callback)
    settings = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0, "GRACEFUL_EXIT_HOOKS": [hook]}
    options = ["--worker-class", "tests.support.dying_workers.TellsIfStored"]
    worker = stopped(job.id, options=options, **settings)
    worker.wait(10)
    assert "the job did not end, ending the worker" in worker.output
    assert "was stored: True" in worker.output
    _, in_flight = last_word(connection, worker)
    assert (in_flight.outcome, job.get_status(refresh=True)) == (outcome, status), worker.output
    assert queue.job_ids == []


def test_a_child_of_the_job(stopped: Callable[..., WorkerProcess], connection: redis.Redis, queue: Queue) -> None:
    """A child process of the job does not delay the exit or change the exit code."""
    job = queue.enqueue(worker_jobs.stubborn_with_a_child, 60)
    hook = "tests.support.worker_hooks.naps"
    settings = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0, "GRACEFUL_EXIT_HOOKS": [hook]}
    worker = stopped(job.id, **settings)
    began = time.monotonic()
    code = worker.wait(10)
    took = time.monotonic() - began
    report = report_of(connection, worker)
    worker.clear()
    assert code == report.exit_code == os.EX_TEMPFAIL, worker.output
    assert took < 3.0 + LATE


@pytest.mark.parametrize(
    ("job", "outcome", "exit_code"),
    [
        # The worker itself tries to requeue it, and cannot.
        (worker_jobs.idles, Outcome.CRASHED, os.EX_UNAVAILABLE),
        # It is left to the supervisor.
        (jobs.stubborn, Outcome.INTERRUPTED, os.EX_TEMPFAIL),
    ],
)
def test_redis_that_froze_before_the_signal(
    job: Callable[[float], None],
    outcome: Outcome,
    exit_code: int,
    start_worker: StartWorker,
    own_valkey: Server,
) -> None:
    """If Redis hangs during a heartbeat, the job is interrupted, hooks run in time, and Redis has the report later."""
    connection = own_valkey.client()
    enqueued = get_queue("default").enqueue(job, 60)
    settings = {
        "GRACEFUL_TIMEOUT": 6.0,
        "GRACEFUL_HOOKS_TIMEOUT": 4.0,
        "GRACEFUL_INTERRUPT_TIMEOUT": 1.0,
        "GRACEFUL_EXIT_HOOKS": ["graceful.hooks.builtin.close_caches"],
    }
    hasty = ["--worker-class", "tests.support.dying_workers.HastySimple"]
    worker = start_worker(options=hasty, settings=settings)
    wait_until(lambda: connection.hget(jobs.PIDS, enqueued.id), 10, lambda: worker.output)
    own_valkey.pause()
    try:
        let_pass(2.0, "several heartbeats got no answer; nothing else shows them")
        worker.signal(signal.SIGTERM)
        code = worker.wait(12)
    finally:
        own_valkey.resume()
    wait_until(lambda: not worker.children(), 12, lambda: worker.output)
    report = report_of(connection, worker)
    assert [hook.outcome for hook in report.hooks] == [HookOutcome.OK], worker.output
    assert (report.outcome, report.exit_code, code) == (outcome, exit_code, exit_code), worker.output
