"""Ends at which the surroundings do not play along: the exit code is the report's, and all is over in time."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGTERM

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.processes import ROOT, WorkerProcess
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import wait_until

SETTINGS = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
HOOKS = "tests.support.attack_hooks"
STUCK_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stuck": {"class": f"{HOOKS}.StuckHandler"}},
    "loggers": {"graceful": {"handlers": ["stuck"]}},
}
LATE = 0.5
"""Seconds that a loaded machine may take to see the end of a process."""


def hooks(*names: str) -> dict[str, object]:
    return {**SETTINGS, "GRACEFUL_EXIT_HOOKS": [f"{HOOKS}.{name}" for name in names]}


MANY_TIMES = """
import os, threading, django
django.setup()
import django_rq
from django.utils.module_loading import import_string
from tests.support import jobs
def threads_that_stay():
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(3)
    return threading.active_count()
queue = django_rq.get_queue("default")
descriptors = []
for number in range(4):
    queue.enqueue(jobs.quick)
    worker = import_string("{worker_class}")([queue], connection=queue.connection)
    assert worker.work(burst=True)
    assert worker.exit_code == 0
    assert worker.report.jobs.finished == 1
    assert threads_that_stay() == 1, threading.enumerate()
    descriptors.append(len(os.listdir("/dev/fd")))
assert len(set(descriptors[1:])) == 1, descriptors
"""


def seconds_to_end(worker: WorkerProcess) -> float:
    began = time.monotonic()
    worker.signal(SIGTERM)
    worker.wait(10)
    return time.monotonic() - began


def test_database_that_does_not_answer(connection: redis.Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    """With a hung database the worker ends in time, and the report waits in Redis."""
    path = tmp_path / "locked.sqlite3"
    worker = start_worker(settings=hooks("after"), environment={"DATABASE_URL": f"sqlite:///{path}"})
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        assert seconds_to_end(worker) < 2.0 + LATE
    finally:
        database.close()
    assert "The shutdown has to be forced" not in worker.output
    # We and SQLite stop waiting at the same deadline: either may be the one that says so.
    assert re.search(r"the database took longer than|database is locked", worker.output), worker.output
    report = report_of(connection, worker)
    assert (worker.exit_code, report.outcome, report.exit_code) == (0, "clean", 0)
    assert "Shutdown of worker" in worker.output
    assert connection.hlen("graceful:workers") == 0


def test_hook_that_closes_all_descriptors(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A hook that closes all descriptors does not change the exit code."""
    worker = start_worker(settings=hooks("closes_all_descriptors", "after"))
    assert seconds_to_end(worker) < 3.0 + LATE
    report = report_of(connection, worker)
    assert (worker.exit_code, report.exit_code) == (0, 0), worker.output
    assert [hook.outcome for hook in report.hooks] == ["ok", "ok"]


def test_output_that_nobody_reads_any_more(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A blocked log pipe affects neither the hooks nor the report."""
    worker = start_worker(settings=hooks("fills_the_output", "after"))
    assert seconds_to_end(worker) < 3.0 + LATE
    report = report_of(connection, worker)
    assert report.sealed
    assert worker.exit_code == report.exit_code
    assert [(hook.outcome, hook.detail) for hook in report.hooks] == [("ok", ""), ("ok", "ran")]


def test_log_that_was_stuck_before_the_signal(
    connection: redis.Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A worker whose log pipe is blocked before the signal still ends in time."""
    stuck = tmp_path / "stuck"
    worker = start_worker(settings={**hooks("after"), "LOGGING": STUCK_LOG}, environment={"TEST_STUCK": str(stuck)})
    stuck.touch()
    assert seconds_to_end(worker) < 3.0 + LATE
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code) == ("forced", 70)
    assert worker.exit_code == 70


def test_log_that_is_stuck_while_a_job_runs(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A blocked log keeps neither a job from its limits nor the report from being stored; no horse is left behind."""
    stuck = tmp_path / "stuck"
    worker = start_worker(settings={**hooks("after"), "LOGGING": STUCK_LOG}, environment={"TEST_STUCK": str(stuck)})
    job = queue.enqueue(jobs.stubborn, 60)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    stuck.touch()
    assert seconds_to_end(worker) < 3.0 + LATE
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code, worker.exit_code) == ("forced", 70, 70)
    (in_flight,) = report.jobs.in_flight
    assert (in_flight.function, in_flight.outcome) == ("tests.support.jobs.stubborn", "unknown")


@pytest.mark.parametrize(("hook", "code"), [("hangs_at_exit", 0), ("hangs_at_exit_with_the_gil", 1)])
def test_atexit_function_that_hangs(hook: str, code: int, connection: redis.Redis, start_worker: StartWorker) -> None:
    """An atexit function that hangs does not delay the exit past the grace period."""
    worker = start_worker(settings=hooks(hook))
    assert seconds_to_end(worker) < 3.0 + LATE
    assert worker.exit_code == code
    assert report_of(connection, worker).exit_code == 0


def test_receiver_of_shutdown_finished_that_hangs(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A receiver of ``shutdown_finished`` that hangs does not change the stored report."""
    worker = start_worker(settings=hooks("leaves_a_receiver_that_hangs"))
    assert seconds_to_end(worker) < 2.0 + LATE
    report = report_of(connection, worker)
    assert (worker.exit_code, report.exit_code) == (0, 0)


def test_job_in_c_code_that_takes_no_notice_of_signals(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """In a worker without horses, a job in C code does not delay the end past the grace period."""
    job = queue.enqueue(worker_jobs.waits_in_c, 30)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"], settings=hooks("after"))
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 10, lambda: worker.output)
    assert seconds_to_end(worker) < 3.0 + LATE
    wait_until(lambda: not worker.children(), 10, lambda: worker.output)  # The supervisor puts the job back.
    report = report_of(connection, worker)
    assert (worker.exit_code, report.outcome, report.signal) == (75, "interrupted", "SIGTERM")
    assert [(each.id, each.outcome) for each in report.jobs.in_flight] == [(job.id, "killed")]
    assert [hook.outcome for hook in report.hooks] == ["ok"]
    assert queue.job_ids == [job.id]


def test_job_that_closes_all_descriptors_of_a_simple_worker(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker without horses whose job has closed all descriptors is still stopped in time, and its job requeued.

    By itself or by a reaper: Redis may be unreachable for a worker whose descriptors are another's by now.
    """
    job = queue.enqueue(worker_jobs.closes_all_descriptors, 30)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"], settings=hooks("after"))
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 10, lambda: worker.output)
    assert seconds_to_end(worker) < 3.0 + LATE
    report = report_of(connection, worker)
    assert (worker.exit_code, report.outcome) == (75, "interrupted"), worker.output
    assert [each.id for each in report.jobs.in_flight] == [job.id]
    assert start_worker(["high"], ["--burst"], wait=False).wait() == 0
    assert queue.job_ids == [job.id]


def test_signal_that_another_thread_recorded_first_counts_once(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A signal recorded by two threads counts as one request."""
    job = queue.enqueue(worker_jobs.waits_in_c, 2.5)
    worker = start_worker(options=["--worker-class", "rq.SimpleWorker"])
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 10, lambda: worker.output)
    worker.signal(SIGTERM)
    worker.wait_output("shutdown requested", 2)
    assert worker.wait(10) == 0
    assert job.return_value() == "waited"
    assert "again" not in worker.output


@pytest.mark.parametrize("worker_class", ["GracefulSimpleWorker", "GracefulWorker"])
def test_many_workers_in_one_process(worker_class: str, valkey: Server, connection: redis.Redis) -> None:
    """Many workers in one process leave neither threads nor connections behind."""
    script = MANY_TIMES.format(worker_class=f"graceful.worker.{worker_class}")
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT), "TEST_REDIS_URL": valkey.url}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
