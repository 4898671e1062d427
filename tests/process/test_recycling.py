"""Workers that end because they have grown too large or too old."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from graceful.core.phases import Outcome, Phase, Reason
from graceful.core.records import ShutdownReport
from graceful.memory import MEGABYTE
from graceful.reports.journal import JOURNAL_KEY
from tests.conftest import StartWorker
from tests.support import jobs, memory_jobs, previous_version
from tests.support.processes import ROOT
from tests.support.reports import report_of
from tests.support.waiting import wait_until

SIMPLE = ("--worker-class", "rq.SimpleWorker")
SPAWN = ("--worker-class", "rq.worker.SpawnWorker")
RQWORKER = {"command": "rqworker", "options": ("--worker-class", "graceful.worker.GracefulWorker")}


def assert_recycled(report: ShutdownReport, reason: Reason) -> None:
    """A recycled worker has ended clean."""
    ended = (report.reason, report.outcome, report.exit_code, report.phase)
    assert ended == (reason, Outcome.CLEAN, 0, Phase.SEALED)
    assert report.notes == ""


def test_a_worker_that_has_grown_ends_between_two_jobs(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that leaves memory behind in a simple worker is its last one; the next job stays in its queue."""
    enqueued = [queue.enqueue(memory_jobs.leaks, 1), queue.enqueue(memory_jobs.leaks, 300), queue.enqueue(jobs.quick)]
    worker = start_worker(options=(*SIMPLE, "--max-memory", "300"), wait=False)
    assert worker.wait() == 0
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished", "finished", "queued"]
    report = report_of(connection, worker)
    assert_recycled(report, Reason.MEMORY)
    assert report.peak.worker is not None
    assert 300 * MEGABYTE < report.peak.worker < 600 * MEGABYTE
    assert report.peak.horse is None
    assert "above 300 MB, quitting" in worker.output


@pytest.mark.parametrize("options", [(), SPAWN], ids=["fork", "spawn"])
def test_a_large_horse_counts(
    options: tuple[str, ...], connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """The memory that a job's process had at its peak counts too, though it has given it back, and is in the report."""
    enqueued = [queue.enqueue(memory_jobs.takes, 1), queue.enqueue(memory_jobs.takes, 400), queue.enqueue(jobs.quick)]
    worker = start_worker(options=(*options, "--max-memory", "400"), wait=False)
    assert worker.wait(40) == 0
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished", "finished", "queued"]
    report = report_of(connection, worker)
    assert_recycled(report, Reason.MEMORY)
    assert report.peak.horse is not None
    assert report.peak.worker is not None
    assert report.peak.worker < 300 * MEGABYTE < 400 * MEGABYTE < report.peak.horse < 600 * MEGABYTE


@pytest.mark.parametrize(
    "command",
    [{"options": ("--max-memory", "900"), "settings": {"GRACEFUL_MAX_MEMORY": 1}}, {"settings": {}}],
    ids=["the option wins", "no limit"],
)
def test_a_worker_below_its_limit_goes_on(
    command: dict[str, Any], connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker that is not too large does all jobs of its burst; without a limit nothing is logged about one."""
    enqueued = [queue.enqueue(jobs.quick) for _ in range(3)]
    worker = start_worker(options=("--burst", *command.get("options", ())), settings=command["settings"], wait=False)
    assert worker.wait() == 0
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished"] * 3
    assert_recycled(report_of(connection, worker), Reason.BURST)
    assert ("ends between two jobs above 900 MB" in worker.output) == bool(command["settings"])


@pytest.mark.parametrize(
    "command",
    [{"options": ("--max-age", "2")}, {**RQWORKER, "settings": {"GRACEFUL_MAX_AGE": 1.5}}],
    ids=["option", "setting, under rqworker"],
)
def test_an_idle_worker_ends_when_it_is_too_old(
    command: dict[str, Any], connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Nobody has to enqueue a job for it."""
    worker = start_worker(**command)
    assert worker.wait(10) == 0
    report = report_of(connection, worker)
    assert_recycled(report, Reason.AGE)
    assert report.requested_at is not None
    age = (report.requested_at - report.started_at).total_seconds()
    assert 1.4 < age < 4


def test_a_job_is_not_cut_short_by_age(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker that grows too old during a job finishes it, and takes no other one."""
    long, waiting = queue.enqueue(jobs.until_released, "go"), queue.enqueue(jobs.quick)
    worker = start_worker(options=("--max-age", "1"))
    wait_until(lambda: connection.hget(jobs.STARTED, long.id))
    wait_until(lambda: float(connection.time()[0]) - long.enqueued_at.timestamp() > 2)  # type: ignore[union-attr, index]
    connection.rpush("go", 1)
    assert worker.wait() == 0
    assert [job.get_status(refresh=True) for job in (long, waiting)] == ["finished", "queued"]
    assert_recycled(report_of(connection, worker), Reason.AGE)


def test_the_version_before_reads_the_report(
    connection: redis.Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    """In a rolling deploy the version before reads and archives the report of a recycled worker."""
    worker = start_worker(options=("--max-age", "1"))
    assert worker.wait(10) == 0
    (text,) = connection.hvals(JOURNAL_KEY)
    assert json.loads(text)["recycled"] == "age"
    (tmp_path / "previous").mkdir()
    environment = previous_version.unpack(tmp_path / "previous")
    code = "import sys; from graceful.core import report_json; print(report_json.load(sys.stdin.read()).reason)"
    read = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, input=text.decode(), text=True, capture_output=True
    )
    assert (read.stdout.strip(), read.stderr) == ("max_jobs", "")


@pytest.mark.parametrize("options", [("--max-memory", "0"), ("--max-memory", "1.5"), ("--max-age", "soon")])
def test_a_limit_that_is_none(options: tuple[str, str], start_worker: StartWorker) -> None:
    """An option that is no positive whole number starts nothing, and says what was expected."""
    worker = start_worker(options=options, wait=False)
    assert worker.wait() == 2
    assert f"argument {options[0]}: a whole number from 1 to 999999 was expected, got: {options[1]!r}" in worker.output
