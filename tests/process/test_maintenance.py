"""A worker's maintenance: it archives what waits in the journal, but no job waits for that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import redis
from rq import Queue

from graceful.core.phases import Outcome
from graceful.core.records import utc_now
from graceful.reports import archive
from graceful.reports.journal import Journal
from graceful.reports.slots import SLOTS_KEY
from tests.conftest import StartWorker
from tests.db.samples import a_report
from tests.support import jobs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")


def test_jobs_come_first(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker that starts takes the jobs that wait, and archives others' reports when none does."""
    report = a_report(requested_at=utc_now(), drained_at=utc_now(), ended_at=utc_now())
    Journal(connection).write(report)
    for _ in range(2):
        queue.enqueue(jobs.until_released, "go")
    worker = start_worker()
    for number in (1, 2):
        wait_until(lambda number=number: connection.hlen(jobs.PIDS) == number, 10, lambda: worker.output)  # type: ignore[misc]
        assert archive.read(report.id) is None
        connection.rpush("go", 1)
    wait_until(lambda: archive.read(report.id) == report, 10, lambda: worker.output)


def test_a_burst_ends_with_it(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Workers that are started for a burst only archive others' reports, too."""
    report = a_report(requested_at=utc_now(), drained_at=utc_now(), ended_at=utc_now())
    Journal(connection).write(report)
    queue.enqueue(jobs.until_released, "go")
    connection.rpush("go", 1)
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert connection.hlen(jobs.PIDS) == 1
    assert archive.read(report.id) == report


def test_a_signal_does_not_wait_for_it(connection: redis.Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    """A worker that is stopped while it stores others' reports in a database that does not answer ends in time."""
    path = tmp_path / "locked.sqlite3"
    Journal(connection).write(a_report(requested_at=utc_now(), drained_at=utc_now(), ended_at=utc_now()))
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        settings = {"GRACEFUL_TIMEOUT": 1.5, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.2}
        worker = start_worker(environment={"DATABASE_URL": f"sqlite:///{path}"}, settings=settings)
        wait_until(lambda: connection.exists(SLOTS_KEY), 10, lambda: worker.output)  # It is at it.
        worker.signal()
        assert worker.wait() == 0, worker.output
    finally:
        database.close()
    report = next(each for each in Journal(connection).entries() if each.worker == worker.name)
    assert report.outcome is Outcome.CLEAN


def test_it_is_not_put_off_for_ever(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Where jobs always wait, it runs at the next time at the latest."""
    report = a_report(requested_at=utc_now(), drained_at=utc_now(), ended_at=utc_now())
    Journal(connection).write(report)
    for _ in range(2):
        queue.enqueue(jobs.until_released, "go")
    worker = start_worker(options=["--worker-class", "tests.support.horse_workers.OftenMaintained"])
    connection.rpush("go", 1)
    wait_until(lambda: connection.hlen(jobs.PIDS) == 2, 10, lambda: worker.output)
    assert archive.read(report.id) == report
