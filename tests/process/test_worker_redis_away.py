"""Redis is gone or does not answer at the worst moment: the worker ends in time, hooks run, and the report is kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection as database
from rq import Queue

from graceful.core import report_json
from graceful.core.phases import JobOutcome
from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as Row
from graceful.reports.rows import record_of
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until
from tests.support.worker_hooks import notes

TIMEOUT = 4.0
SETTINGS = {
    "GRACEFUL_TIMEOUT": TIMEOUT,
    "GRACEFUL_HOOKS_TIMEOUT": 2.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.5,
    "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.exit_note"],
}
OVERRUN_SECONDS = 0.25
SLACK_SECONDS = 0.5
"""On top, since other tests keep the machine busy."""

pytestmark = pytest.mark.usefixtures("shared_database")


class Away:
    """A worker on a server that goes away under it."""

    def __init__(self, server: Server, start_worker: StartWorker, tmp_path: Path) -> None:
        self.server = server
        self.notes_path = tmp_path / "notes"
        self._start_worker = start_worker
        self.queue = Queue(connection=server.client())
        self.horses: list[int] = []

    def start(self, *options: str, **settings: Any) -> WorkerProcess:
        environment = {"TEST_NOTES": str(self.notes_path)}
        return self._start_worker(options=options, settings=SETTINGS | settings, environment=environment)

    def running(self, *arguments: Any) -> Any:
        """A job whose own code runs."""
        job = self.queue.enqueue(*arguments)
        wait_until(lambda: self.queue.connection.hget(jobs.PIDS, job.id), 10)
        self.horses.append(int(self.queue.connection.hget(jobs.PIDS, job.id) or 0))
        return job

    def assert_ends_in_time(self, worker: WorkerProcess, began: float) -> ShutdownReport:
        """It ended within the grace period; its hook ran once, in the main thread; its report is in the database."""
        code = worker.wait(TIMEOUT + 6)
        overrun = time.monotonic() - began - TIMEOUT
        assert overrun < OVERRUN_SECONDS + SLACK_SECONDS, f"{overrun:.2f} s too late; output:\n{worker.output}"
        assert len(notes(self.notes_path, "exit")) == 1, worker.output
        (note,) = notes(self.notes_path, "exit")
        assert (note["pid"], note["main"]) == (worker.pid, True)
        horses = [each for each in note["others"] if each in self.horses]
        assert horses == [], "a hook ran while the job was still running"
        database.close()
        report = record_of(Row.objects.get(worker=worker.name))
        assert report.sealed
        assert report.exit_code == code
        return report


@pytest.fixture
def away(own_valkey: Server, start_worker: StartWorker, tmp_path: Path) -> Away:
    return Away(own_valkey, start_worker, tmp_path)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_away_while_idle(how: str, away: Away) -> None:
    """An idle worker ends and runs its hooks while Redis is unreachable."""
    worker = away.start()
    getattr(away.server, how)()
    began = time.monotonic()
    worker.signal()
    report = away.assert_ends_in_time(worker, began)
    assert report.reason == "signal"
    assert report.jobs.in_flight == ()


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_away_in_the_middle_of_a_job(how: str, worker_class: str, away: Away) -> None:
    """A worker whose Redis is lost during a job ends within the budget, with hooks and report."""
    worker = away.start("--worker-class", worker_class)
    job = away.running(worker_jobs.idles, 60)
    getattr(away.server, how)()
    began = time.monotonic()
    worker.signal()
    report = away.assert_ends_in_time(worker, began)
    ((job_id, outcome),) = [(each.id, each.outcome) for each in report.jobs.in_flight]
    assert (job_id, outcome) == (job.id, JobOutcome.UNKNOWN), "nobody could ask Redis what became of it"


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_paused_while_the_job_ends(worker_class: str, away: Away) -> None:
    """A worker or horse that stores a result in a hung Redis ends within the budget."""
    worker = away.start("--worker-class", worker_class)
    away.running(worker_jobs.idles, 0.7)
    away.server.pause()
    # The job ends now, and its end cannot be stored.
    let_pass(1.2, "the job has ended; a Redis that is paused shows nothing of it")
    began = time.monotonic()
    worker.signal()
    away.assert_ends_in_time(worker, began)


def test_paused_under_a_worker_that_waits_for_its_answer(away: Away) -> None:
    """A signal during a blocked Redis call is handled at once."""
    worker = away.start()
    job = away.running(jobs.until_released, "go")
    away.queue.connection.rpush("go", 1)
    # Just after the job the worker tells Redis so, several times.
    wait_until(lambda: job.get_status(refresh=True) == "finished", interval=0.001)
    away.server.pause()
    let_pass(0.3, "the worker waits for an answer; it does not say so")
    began = time.monotonic()
    worker.signal()
    away.assert_ends_in_time(worker, began)


@pytest.mark.parametrize("refusal", ["read-only", "out of memory"])
def test_writes_refused_while_a_job_ends(refusal: str, away: Away) -> None:
    """A Redis that refuses writes while a job is interrupted counts as unreachable, not as an error of the worker."""
    client = away.queue.connection
    worker = away.start()
    job = away.running(worker_jobs.idles, 30)
    if refusal == "read-only":
        client.replicaof("127.0.0.1", 1)
    else:
        client.config_set("maxmemory", "1")
    began = time.monotonic()
    worker.signal()
    report = away.assert_ends_in_time(worker, began)
    client.config_set("maxmemory", "0")
    client.replicaof("NO", "ONE")
    assert (report.reason, report.exit_code) == ("redis_lost", os.EX_UNAVAILABLE)
    assert [each.id for each in report.jobs.in_flight] == [job.id]


def test_back_within_the_budget(away: Away) -> None:
    """If Redis comes back within the budget, the interrupted job is requeued."""
    worker = away.start(GRACEFUL_TIMEOUT=8.0, GRACEFUL_HOOKS_TIMEOUT=6.0)
    job = away.running(worker_jobs.idles, 60)
    away.server.pause()
    worker.signal()
    wait_until(lambda: "interrupting it" in worker.output, 8, lambda: worker.output)
    let_pass(1.5, "Redis is away for longer than one command may take")
    assert worker.running, worker.output
    away.server.resume()
    code = worker.wait(10)
    database.close()
    report = record_of(Row.objects.get(worker=worker.name))
    # Whether a command of the worker's own loop met the pause is chance; if so, that is the reason for its end.
    expected = {"signal": os.EX_TEMPFAIL, "redis_lost": os.EX_UNAVAILABLE}
    assert report.exit_code == code == expected[report.reason or ""], worker.output
    (in_flight,) = report.jobs.in_flight
    assert in_flight.outcome is JobOutcome.INTERRUPTED
    assert balance(away.queue.connection, [job.id]).places == {job.id: ("queue:default",)}


def test_back_for_the_reaper(away: Away) -> None:
    """A job held by a worker that ended without Redis is requeued by a reaper."""
    worker = away.start()
    job = away.running(worker_jobs.idles, 60)
    away.server.pause()
    began = time.monotonic()
    worker.signal()
    report = away.assert_ends_in_time(worker, began)
    away.server.resume()
    assert [each.outcome for each in report.jobs.in_flight] == [JobOutcome.UNKNOWN]
    away.notes_path.unlink()
    connection = away.queue.connection
    connection.hset(job.key, "timeout", 3600)
    starts = int(connection.hget(jobs.STARTED, job.id) or 0)
    reaper = away.start()
    wait_until(lambda: int(connection.hget(jobs.STARTED, job.id) or 0) == starts + 1, 10, lambda: reaper.output)
    reaper.signal()
    assert reaper.wait(10) == os.EX_TEMPFAIL
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}
    database.close()
    assert sorted(Row.objects.values_list("worker", flat=True)) == sorted([worker.name, reaper.name])


def test_a_server_that_does_not_answer_at_the_start(away: Away, start_worker: StartWorker) -> None:
    """A worker that starts against a hung Redis ends at SIGTERM."""
    away.server.pause()
    worker = start_worker(settings=SETTINGS, wait=False)
    # It is in our code and has its handlers when it no longer dies of the signal: there is nothing else to see.
    let_pass(2.0, "it has imported what it needs")
    assert worker.running, worker.output
    began = time.monotonic()
    worker.signal()
    worker.wait(TIMEOUT + 6)
    assert time.monotonic() - began < TIMEOUT + OVERRUN_SECONDS + SLACK_SECONDS, worker.output


def test_redis_and_database_are_away(own_valkey: Server, start_worker: StartWorker, tmp_path: Path) -> None:
    """Without Redis and database the report is spooled."""
    environment = {"TEST_NOTES": str(tmp_path / "notes")}
    worker = start_worker(settings=SETTINGS, environment=environment | {"DATABASE_URL": "sqlite://"})
    own_valkey.kill()
    worker.signal()
    assert worker.wait(TIMEOUT + 3) == 0, worker.output
    (file,) = (tmp_path / "spool").iterdir()
    report = report_json.load(file.read_text())
    assert (report.worker, report.sealed, report.outcome) == (worker.name, True, "clean")
    assert json.loads(file.read_text())["hooks"][0]["outcome"] == "ok"
    # The next worker on this machine stores it.
    own_valkey.start()
    reaper = start_worker(environment=environment)
    wait_until(lambda: Row.objects.filter(worker=worker.name).exists(), 10, lambda: reaper.output)
    # It is removed once the database has it.
    wait_until(lambda: list((tmp_path / "spool").iterdir()) == [], 10, lambda: reaper.output)
