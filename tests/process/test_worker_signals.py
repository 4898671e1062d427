"""Signals: quiet, stacks, the second and the third one, and those that are not meant for the job."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.suspension import resume, suspend

from graceful.core.phases import JobOutcome, Reason
from graceful.reports.builder import QUIET
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess, is_alive
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until

LONG = {"GRACEFUL_TIMEOUT": 30.0, "GRACEFUL_HOOKS_TIMEOUT": 5.0, "GRACEFUL_INTERRUPT_TIMEOUT": 20.0}


def wait_running(connection: redis.Redis, worker: WorkerProcess, job_id: str) -> int:
    """Wait until the job's own code runs; returns its process."""
    wait_until(lambda: connection.hget(jobs.PIDS, job_id), 10, lambda: f"job {job_id} runs; output:\n{worker.output}")
    return int(connection.hget(jobs.PIDS, job_id) or 0)


def test_a_signal_that_hits_the_horse_does_no_harm(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """SIGTERM and SIGINT to the horse do not end the running job."""
    worker = start_worker(settings=LONG)
    job = queue.enqueue(jobs.until_released, "go")
    horse = wait_running(connection, worker, job.id)
    assert os.getpgid(horse) == horse
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP, signal.SIGURG):
        os.kill(horse, signum)
    os.killpg(horse, signal.SIGTERM)
    worker.signal_session(signal.SIGTERM)
    wait_until(lambda: report_of(connection, worker).phase == "draining")
    assert is_alive(horse)
    connection.rpush("go", 1)
    assert worker.wait(5) == 0
    assert job.get_status(refresh=True) == "finished"
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert (in_flight.outcome, in_flight.interruptions) == (JobOutcome.FINISHED, 0)


def test_a_job_ends_what_it_started(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Processes that a job starts have the default handlers: ``Popen.terminate()`` ends them."""
    worker = start_worker()
    for function in (worker_jobs.ends_a_program, worker_jobs.ends_a_process):
        job = queue.enqueue(function)
        wait_until(lambda job=job: job.get_status(refresh=True) in ("finished", "failed"), 10, lambda: worker.output)  # type: ignore[misc]
        assert job.return_value() == -signal.SIGTERM, worker.output
    worker.signal()
    assert worker.wait(5) == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_the_second_signal_interrupts_and_two_within_a_second_are_one(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A second SIGTERM makes the soft limit now; two within a second count as one."""
    worker = start_worker(options=["--worker-class", worker_class], settings=LONG)
    job = queue.enqueue(jobs.napping, 60)
    wait_running(connection, worker, job.id)
    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "asked to stop again, too soon to count" in worker.output)
    # Well within the second nothing has happened; then one more.
    assert "interrupting it" not in worker.output
    assert worker.running
    let_pass(1.2, "a further signal counts")
    assert worker.running
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == os.EX_TEMPFAIL
    assert "asked to stop again\n" in worker.output, "the one that counts is said not to"
    assert f"job {job.id} was interrupted and requeued" in worker.output
    report = report_of(connection, worker)
    assert report.signal == "SIGINT"
    assert 1.0 < (report.seconds.total or 0) < 5
    assert [each.outcome for each in report.jobs.in_flight] == [JobOutcome.INTERRUPTED]
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


def test_a_job_that_took_the_signals(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A simple worker takes its signal handlers back after a job that has set its own."""
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"])
    first, second = queue.enqueue(worker_jobs.takes_signals), queue.enqueue(jobs.napping, 0.3)
    wait_until(lambda: second.get_status(refresh=True) == "started", 10, lambda: worker.output)
    assert first.get_status(refresh=True) == "finished"
    worker.signal()
    assert worker.wait(5) == os.EX_OK, worker.output
    assert second.get_status(refresh=True) == "finished"
    assert report_of(connection, worker).jobs.finished == 2


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_the_third_signal_kills(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A third SIGTERM kills the job at once, with its stack in the report, and requeues it."""
    worker = start_worker(options=["--worker-class", worker_class], settings=LONG)
    job = queue.enqueue(jobs.stubborn, 60)
    horse = wait_running(connection, worker, job.id)
    for _ in range(3):
        worker.signal()
        let_pass(1.1, "a further signal counts")
    assert worker.wait(5) == os.EX_TEMPFAIL
    assert not is_alive(horse)
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.KILLED
    assert "in stubborn" in in_flight.stack
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


def test_quiet(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A quiet worker finishes its job and takes no other."""
    worker = start_worker()
    job = queue.enqueue(jobs.until_released, "go")
    wait_running(connection, worker, job.id)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: report_of(connection, worker).notes == QUIET)
    wait_until(lambda: "quiet" in worker.output)
    next_job = queue.enqueue(jobs.quick)
    connection.rpush("go", 1)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    worker.wait_state("suspended")
    assert next_job.get_status(refresh=True) == "queued"
    assert worker.running
    began = time.monotonic()
    worker.signal()
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 2
    assert next_job.get_status(refresh=True) == "queued"
    assert report_of(connection, worker).reason is Reason.SIGNAL


def test_quiet_while_idle(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """An idle worker that becomes quiet takes no job."""
    worker = start_worker()
    worker.signal(signal.SIGTSTP)
    worker.wait_state("suspended")
    job = queue.enqueue(jobs.quick)
    worker.signal()
    assert worker.wait(5) == 0
    assert job.get_status(refresh=True) == "queued"


def test_stacks(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """SIGTTIN writes the stacks of worker and horse to the log, repeatedly, and does not disturb the job."""
    worker = start_worker()
    job = queue.enqueue(worker_jobs.waits_in_two_threads, "go")
    wait_running(connection, worker, job.id)
    worker.signal(signal.SIGTTIN)
    worker.wait_output("stacks of the work horse")
    wait_until(lambda: "waits_in_two_threads" in worker.output)
    output = worker.output
    assert "stacks of the worker" in output
    assert "wait_for_horse" in output
    assert "(MainThread):" in output
    assert "_wait_in_thread" in output, "only the horse's main thread is shown"
    # Asking a second time works as well, and harms nothing.
    worker.signal(signal.SIGTTIN)
    wait_until(lambda: worker.output.count("stacks of the work horse") == 2)
    wait_until(lambda: "waits_in_two_threads" in worker.output.split("stacks of the work horse")[2])
    assert worker.output.count("in waits_in_two_threads") == 2, "the second time shows the first stacks again"
    connection.rpush("go", 1)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    worker.signal(signal.SIGTTIN)
    wait_until(lambda: worker.output.count("stacks of the worker") == 3)
    worker.signal()
    assert worker.wait(5) == 0


def test_a_suspended_worker_stops_at_once(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A suspended worker stops at once."""
    suspend(connection)
    worker = start_worker(wait=False)
    worker.wait_state("suspended")
    job = queue.enqueue(jobs.quick)
    began = time.monotonic()
    worker.signal()
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 0.9, "it has slept out RQ's second"
    assert job.get_status(refresh=True) == "queued"
    # One that is started while suspended does the same; resumed, it works.
    suspended = start_worker(wait=False)
    suspended.wait_state("suspended")
    assert job.get_status(refresh=True) == "queued"
    resume(connection)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    suspended.signal()
    assert suspended.wait(5) == 0
    suspend(connection)
    burst = start_worker(options=["--burst"], wait=False)
    assert burst.wait() == 0


@pytest.mark.parametrize("command", ["runworker_graceful", "rqworker"])
def test_a_worker_that_is_still_starting_stops_at_once(
    command: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker that is still starting stops at once, and takes no job."""
    options = ["--worker-class", "graceful.worker.GracefulWorker"] if command == "rqworker" else []
    job_ids = [queue.enqueue(jobs.quick).id for _ in range(30)]

    def start_and_stop(place: int) -> tuple[int, float, str]:
        worker = start_worker(command=command, options=options, wait=False)
        let_pass(place * 0.1, "it has come further in its start than the one before")
        worker.signal()
        began = time.monotonic()
        return worker.wait(10), time.monotonic() - began, worker.output

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(start_and_stop, range(12)))
    for code, seconds, output in ended:
        # Before Python has come to our code the signal just ends the process.
        assert code in (0, -signal.SIGTERM), output
        assert seconds < 3, output
        assert "Traceback" not in output
    books = balance(connection, job_ids)
    books.assert_balanced()
    assert books.run_twice == []


def test_a_worker_that_waits_for_redis_stops_at_once(
    own_valkey: Server, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A worker in its back-off for Redis stops at once."""
    worker = start_worker()
    own_valkey.stop()
    worker.wait_output("could not connect to Redis", 20)
    began = time.monotonic()
    worker.signal()
    code = worker.wait(20)
    seconds = time.monotonic() - began
    assert code == 0, worker.output
    assert seconds < 5, worker.output
    assert list((tmp_path / "spool").iterdir()), "with Redis and database away the report is a file"
