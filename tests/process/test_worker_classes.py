"""Worker classes: RQ's own, a user's own, and what cannot be made graceful."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from rq import Queue

from graceful.core.phases import JobOutcome
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.job_accounting import balance
from tests.support.reports import report_of
from tests.support.waiting import wait_until
from tests.support.worker_hooks import notes

SETTINGS = {
    "GRACEFUL_TIMEOUT": 3.0,
    "GRACEFUL_HOOKS_TIMEOUT": 1.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 1.0,
    "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.exit_note"],
    "GRACEFUL_HORSE_EXIT_HOOKS": ["tests.support.worker_hooks.horse_note"],
}
OWN = "tests.support.worker_hooks.OwnWorker"


@pytest.mark.parametrize(
    ("worker_class", "reported"),
    [
        ("rq.Worker", "graceful.worker.classes.GracefulWorker"),
        ("rq.SimpleWorker", "graceful.worker.classes.GracefulSimpleWorker"),
        ("rq.worker.SpawnWorker", "graceful.worker.classes.GracefulSpawnWorker"),
        ("rq.worker.HerokuWorker", "HerokuWorker"),
        ("rq.worker.RoundRobinWorker", "RoundRobinWorker"),
        ("rq.worker.RandomWorker", "RandomWorker"),
        (OWN, OWN),
    ],
)
def test_each_class_runs_jobs_and_interrupts_them(
    worker_class: str,
    reported: str,
    connection: redis.Redis,
    queue: Queue,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """Every supported worker class runs jobs and interrupts them at a shutdown."""
    path = tmp_path / "notes"
    worker = start_worker(
        options=("--worker-class", worker_class), settings=SETTINGS, environment={"TEST_NOTES": str(path)}
    )
    good, bad, pid = queue.enqueue(jobs.quick, 7), queue.enqueue(jobs.failing), queue.enqueue(jobs.pid)
    wait_until(lambda: pid.get_status(refresh=True) == "finished", 20, lambda: worker.output)
    assert good.return_value() == 7
    assert bad.get_status(refresh=True) == "failed"
    simple = "Simple" in worker_class
    assert (pid.return_value() == worker.pid) == simple, "the job has run in the wrong process"
    long = queue.enqueue(jobs.napping, 30)
    wait_until(lambda: connection.hget(jobs.STARTED, long.id), 20, lambda: worker.output)
    worker.signal_session()
    assert worker.wait(6) == os.EX_TEMPFAIL, worker.output

    report = report_of(connection, worker)
    assert report.worker_class.endswith(reported)
    assert (report.jobs.finished, report.jobs.failed) == (2, 1)
    ((job_id, outcome),) = [(each.id, each.outcome) for each in report.jobs.in_flight]
    assert (job_id, outcome) == (long.id, JobOutcome.INTERRUPTED)
    assert "in napping" in report.jobs.in_flight[0].stack
    assert balance(connection, [long.id]).places == {long.id: ("queue:default",)}
    assert [note["pid"] for note in notes(path, "exit")] == [worker.pid]
    horses = [note["pid"] for note in notes(path, "horse")]
    assert len(horses) == 4, "one at the end of each job"
    assert set(horses) == {worker.pid} if simple else worker.pid not in horses
    assert bool(notes(path, "own worker")) == (worker_class == OWN)


def test_the_class_of_the_settings(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """``RQ["WORKER_CLASS"]`` is used and made graceful."""
    settings = {"RQ": {"WORKER_CLASS": "rq.SimpleWorker"}}
    job = queue.enqueue(jobs.pid)
    worker = start_worker(options=["--burst"], settings=settings, wait=False)
    assert worker.wait() == 0
    assert job.return_value() == worker.pid
    assert report_of(connection, worker).worker_class == "graceful.worker.classes.GracefulSimpleWorker"


@pytest.mark.parametrize(
    ("worker_class", "message"),
    [
        ("tests.support.worker_hooks.NoWorker", "must be derived from rq.worker.BaseWorker"),
        ("tests.support.worker_hooks.OtherKind", "must be derived from rq's Worker, SimpleWorker or SpawnWorker"),
        ("tests.support.worker_hooks.Missing", "Missing"),
        ("rq.worker.SimpelWorker", "SimpelWorker; did you mean rq.worker.SimpleWorker?"),
        ("graceful.workers.GracefulWorker", "; did you mean graceful.worker.GracefulWorker?"),
        ("no_such_module.Worker", "no_such_module"),
    ],
)
def test_a_class_that_cannot_be_graceful(
    worker_class: str, message: str, queue: Queue, start_worker: StartWorker
) -> None:
    """A class that cannot be made graceful is refused with a reason, exit code 78."""
    job = queue.enqueue(jobs.quick)
    worker = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert worker.wait() == os.EX_CONFIG, worker.output
    assert message in worker.output
    assert "--worker-class must be the dotted path of an RQ worker class" in worker.output
    assert "Traceback" not in worker.output
    assert job.get_status(refresh=True) == "queued"


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--queue-class", "nope.Q"], os.EX_CONFIG, "--queue-class must be a dotted path, got: nope.Q"),
        (["--job-class", "rq.job.Nope"], os.EX_CONFIG, "--job-class must be a dotted path, got: rq.job.Nope"),
        (["--serializer", "nope"], os.EX_CONFIG, "--serializer must be a dotted path, got: nope"),
        (["--max-jobs", "0"], 2, "a whole number from 1"),
        (["--max-idle-time=-3"], 2, "a whole number from 1"),
        (["--worker-ttl", "soon"], 2, "a whole number from 1"),
        (["--timeout", "7"], os.EX_OK, "together should be below --timeout (7), got: 8"),
    ],
)
def test_options_that_are_wrong(
    options: list[str], exit_code: int, message: str, start_worker: StartWorker, queue: Queue
) -> None:
    """Invalid options are refused by name."""
    worker = start_worker(options=["--burst", *options], wait=False)
    assert worker.wait() == exit_code, worker.output
    assert message in worker.output
    assert "Traceback" not in worker.output
