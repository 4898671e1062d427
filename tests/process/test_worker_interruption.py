"""What becomes of a job that a shutdown meets, at every stage and in every kind of worker."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import redis
from rq import Callback, Queue, Retry

from graceful.core.phases import JobOutcome, Outcome
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess, is_alive
from tests.support.reports import report_of
from tests.support.waiting import wait_until

SETTINGS = {"GRACEFUL_TIMEOUT": 2.5, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}
"""Soft limit 0.5 s after the signal, hard limit a second later."""
ALL_CLASSES = ["rq.Worker", "rq.SimpleWorker", "rq.worker.SpawnWorker"]
FORKING_AND_SIMPLE = ["rq.Worker", "rq.SimpleWorker"]
OVERRUN_SECONDS = 0.25
SLACK_SECONDS = 0.75
"""On top, since other tests keep the machine busy; the storm measures it without."""


def stop_in(
    job_id: str, connection: redis.Redis, start_worker: StartWorker, worker_class: str = "rq.Worker", **settings: Any
) -> tuple[WorkerProcess, int]:
    """Start a worker, stop it as soon as the job's own code runs, and wait for the worker's end.

    Returns:
        the worker, and the process that the job ran in.
    """
    connection.hdel(jobs.PIDS, job_id)
    worker = start_worker(options=["--worker-class", worker_class], settings=SETTINGS | settings, wait=False)
    wait_until(lambda: connection.hget(jobs.PIDS, job_id), 20, lambda: worker.output)
    worker.signal()
    began = time.monotonic()
    worker.wait(10)
    overrun = time.monotonic() - began - SETTINGS["GRACEFUL_TIMEOUT"]
    assert overrun < OVERRUN_SECONDS + SLACK_SECONDS, worker.output
    horse = int(connection.hget(jobs.PIDS, job_id) or 0)
    assert not is_alive(horse)
    wait_until(lambda: not worker.children(), 10, lambda: worker.output)  # A supervisor may have something to do yet.
    return worker, horse


def interruptions(connection: redis.Redis, key: str | bytes) -> int:
    return int(connection.hget(key, INTERRUPTIONS_FIELD) or 0)


@pytest.mark.parametrize("worker_class", ALL_CLASSES)
def test_an_interrupted_job_is_back_at_the_front_and_counts(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """An interrupted job is requeued at the front and counted; it uses up no retry."""
    failure = Callback(jobs.on_failure)
    job = queue.enqueue(worker_jobs.cleans_up, 60, retry=Retry(max=2), on_failure=failure, meta={"mine": 1})
    behind = [queue.enqueue(jobs.quick, number) for number in range(3)]
    worker, _ = stop_in(job.id, connection, start_worker, worker_class)
    assert worker.exit_code == os.EX_TEMPFAIL, worker.output
    assert connection.lrange(queue.key, 0, -1) == [each.id.encode() for each in (job, *behind)]
    job.refresh()
    assert job.get_status() == "queued"
    assert job.retries_left == 2
    assert job.meta == {"mine": 1}
    assert job.worker_name is None
    assert connection.ttl(job.key) == -1
    assert interruptions(connection, job.key) == 1
    assert connection.lrange(jobs.CALLED, 0, -1) == []
    assert connection.lrange("tests:cleaned", 0, -1) == [job.id.encode()], "its finally block did not run"
    assert job.latest_result() is None
    balance(connection, [job.id, *[each.id for each in behind]]).assert_balanced()
    assert connection.keys("rq:execution*") == []
    assert connection.keys("graceful:held*") == []
    assert connection.keys("graceful:holders") == []
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.INTERRUPTED, 1)
    assert "time.sleep(seconds)" in in_flight.stack
    assert 0.4 < (in_flight.seconds or 0) < 1.5
    # The next worker does it first, and to its end.
    connection.hset(job.key, "data", queue.enqueue(jobs.quick, "again", at_front=False).data)  # type: ignore[arg-type]
    done = start_worker(options=["--burst"], wait=False)
    assert done.wait() == 0
    job.refresh()
    assert (job.get_status(), job.retries_left) == ("finished", 2)


@pytest.mark.parametrize("worker_class", FORKING_AND_SIMPLE)
def test_too_many_interruptions(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that is interrupted too often fails."""
    job = queue.enqueue(jobs.napping, 60, on_failure=Callback(jobs.on_failure), retry=Retry(max=3))
    for number in (1, 2):
        worker, _ = stop_in(job.id, connection, start_worker, worker_class, GRACEFUL_MAX_INTERRUPTIONS=1)
        assert worker.exit_code == os.EX_TEMPFAIL
        (in_flight,) = report_of(connection, worker).jobs.in_flight
        assert in_flight.interruptions == number
    assert in_flight.outcome is JobOutcome.INTERRUPTION_FAILED
    assert job.get_status(refresh=True) == "failed"
    assert "TooManyInterruptions" in (job.latest_result().exc_string or "")
    assert connection.lrange(jobs.CALLED, 0, -1) == [f"failure:{job.id}".encode()]
    books = balance(connection, [job.id])
    books.assert_balanced()
    assert books.places == {job.id: ("failed:default",)}
    assert connection.keys("rq:execution*") == []


@pytest.mark.parametrize("worker_class", FORKING_AND_SIMPLE)
def test_jobs_that_are_to_fail_when_they_are_interrupted(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """The policy of setting, decorator and meta decides whether an interrupted job fails."""
    failure = Callback(jobs.on_failure)

    def stop(function: Any, *, setting: str, **options: Any) -> tuple[Any, Any]:
        connection.delete(jobs.CALLED, queue.key)
        job = queue.enqueue(function, 60, on_failure=failure, **options)
        worker, _ = stop_in(job.id, connection, start_worker, worker_class, GRACEFUL_INTERRUPTED_JOBS=setting)
        assert worker.exit_code == os.EX_TEMPFAIL, worker.output
        (in_flight,) = report_of(connection, worker).jobs.in_flight
        balance(connection, [job.id]).assert_balanced()
        return job, in_flight.outcome

    by_setting, outcome = stop(jobs.napping, setting="fail")
    assert outcome is JobOutcome.INTERRUPTION_FAILED
    assert by_setting.get_status(refresh=True) == "failed"
    assert "shutdown" in (by_setting.latest_result().exc_string or "")
    assert connection.lrange(jobs.CALLED, 0, -1) == [f"failure:{by_setting.id}".encode()]

    with_retry, outcome = stop(jobs.napping, setting="fail", retry=Retry(max=3))
    assert outcome is JobOutcome.INTERRUPTION_FAILED
    with_retry.refresh()
    assert (with_retry.get_status(), with_retry.retries_left) == ("failed", 0)
    assert "StoppedByShutdown" in (with_retry.latest_result().exc_string or "")

    by_itself, outcome = stop(worker_jobs.must_not_be_repeated, setting="requeue")
    assert outcome is JobOutcome.INTERRUPTION_FAILED
    assert by_itself.get_status(refresh=True) == "failed"

    kept, outcome = stop(worker_jobs.may_be_repeated, setting="fail")
    assert outcome is JobOutcome.INTERRUPTED
    assert kept.get_status(refresh=True) == "queued"


@pytest.mark.parametrize("name", ["pays_once", "pays_once_too"])
def test_a_task_that_is_to_fail_when_it_is_interrupted(
    name: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """``@on_interrupt("fail")`` below and above Django's ``@task``: the job fails for good, and is not queued again."""
    job = queue.enqueue(f"tests.support.worker_jobs.{name}", 60, retry=Retry(max=3))
    options = ["--job-class", "tests.support.worker_jobs.TaskJob"]
    worker = start_worker(options=options, settings=SETTINGS, wait=False)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 20, lambda: worker.output)
    worker.signal()
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    assert job.get_status(refresh=True) == "failed"
    assert balance(connection, [job.id]).places == {job.id: ("failed:default",)}
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.INTERRUPTION_FAILED


@pytest.mark.parametrize("worker_class", ALL_CLASSES)
def test_a_hang_in_c_code_is_killed_with_its_stack(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that hangs in C code is killed at the hard limit, with its stack in the report."""
    job = queue.enqueue(worker_jobs.hangs_with_the_gil)
    worker, _ = stop_in(job.id, connection, start_worker, worker_class)
    if worker_class == "rq.SimpleWorker":
        # There the job has the worker's own process, which another one has to kill.
        assert worker.exit_code == -signal.SIGKILL, worker.output
    else:
        assert worker.exit_code == os.EX_TEMPFAIL, worker.output
        assert "hangs_with_the_gil" in report_of(connection, worker).jobs.in_flight[0].stack
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.KILLED, 1)
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


@pytest.mark.parametrize("worker_class", ALL_CLASSES)
def test_a_job_that_swallows_everything_is_killed(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that swallows every exception is killed at the hard limit."""
    job = queue.enqueue(jobs.stubborn, 60)
    worker, _ = stop_in(job.id, connection, start_worker, worker_class)
    assert worker.exit_code == os.EX_TEMPFAIL, worker.output
    report = report_of(connection, worker)
    assert report.outcome is Outcome.INTERRUPTED
    (in_flight,) = report.jobs.in_flight
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.KILLED, 1)
    assert "in stubborn" in in_flight.stack
    if worker_class != "rq.SimpleWorker":
        # Two stacks, in opposite orders: nobody could tell which is which.
        interrupted, killed = in_flight.stack.split("When it was killed:\n")
        assert interrupted.startswith("When it was interrupted:\n  File ")
        assert "in stubborn" in interrupted
        assert "in stubborn" in killed
    assert interruptions(connection, job.key) == 1
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


@pytest.mark.parametrize("worker_class", FORKING_AND_SIMPLE)
def test_callbacks_and_results_are_not_interrupted(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Callbacks and the storing of results are not interrupted."""
    job = queue.enqueue(jobs.quick, 7, on_success=Callback(worker_jobs.slow_success))
    worker, _ = stop_in(job.id, connection, start_worker, worker_class)
    assert worker.exit_code == 0, worker.output
    assert (job.get_status(refresh=True), job.return_value()) == ("finished", 7)
    assert connection.lrange(jobs.CALLED, 0, -1) == [f"slow success:{job.id}".encode()]
    assert interruptions(connection, job.key) == 0
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.FINISHED


@pytest.mark.parametrize("worker_class", FORKING_AND_SIMPLE)
def test_a_job_that_listens_ends_by_itself(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that checks ``shutdown_requested`` and ``time_left`` can end by itself."""
    job = queue.enqueue(worker_jobs.ends_at_a_shutdown)
    worker, _ = stop_in(job.id, connection, start_worker, worker_class, GRACEFUL_TIMEOUT=10.0)
    assert worker.exit_code == 0, worker.output
    assert job.get_status(refresh=True) == "finished"
    assert 7.0 < float(job.return_value()) <= 8.0
    assert (report_of(connection, worker).seconds.total or 9) < 1.0, "the worker has waited for something else"


@pytest.mark.parametrize("worker_class", FORKING_AND_SIMPLE)
def test_an_uninterruptible_block_is_held_to_its_end(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """An ``uninterruptible`` block runs to its end."""
    job = queue.enqueue(worker_jobs.pays)
    worker, _ = stop_in(job.id, connection, start_worker, worker_class)
    assert worker.exit_code == os.EX_TEMPFAIL, worker.output
    assert connection.lrange("tests:paid", 0, -1) == [job.id.encode()]
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.INTERRUPTED
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


@pytest.mark.parametrize("worker_class", ALL_CLASSES)
def test_a_horse_that_is_still_starting(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job whose horse is still starting at the soft limit is requeued within the budget."""
    settings = {"GRACEFUL_TIMEOUT": 1.5, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
    job = queue.enqueue(jobs.napping, 60)
    worker = start_worker(options=["--worker-class", worker_class], settings=settings, wait=False)
    # The soft limit is the signal itself.
    wait_until(lambda: worker.state == "busy", 20, lambda: worker.output, interval=0.001)
    worker.signal()
    assert worker.wait(5) == os.EX_TEMPFAIL, worker.output
    # At the hard limit a worker without horses ends with its job, which only its supervisor gives back.
    wait_until(lambda: not worker.children(), 12, lambda: worker.output)
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome in (JobOutcome.INTERRUPTED, JobOutcome.KILLED, JobOutcome.RETURNED)
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


def test_the_horse_dies_while_it_is_told(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A horse killed by something else at the soft limit counts as a failure, not as an interruption."""
    job = queue.enqueue(jobs.sleeping, 60)
    worker = start_worker(settings=SETTINGS | {"GRACEFUL_TIMEOUT": 20.0}, wait=False)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 20)
    worker.signal()
    wait_until(lambda: report_of(connection, worker).phase == "draining")
    os.kill(int(connection.hget(jobs.PIDS, job.id) or 0), signal.SIGKILL)
    assert worker.wait(5) == 0, worker.output
    assert job.get_status(refresh=True) == "failed"
    assert interruptions(connection, job.key) == 0
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.FAILED
    balance(connection, [job.id]).assert_balanced()
