"""A worker that ends while many others do: its report is stored, by itself or by another."""

from __future__ import annotations

import pytest
import redis
from django.core.management import call_command

from graceful.core.phases import Outcome
from graceful.core.records import utc_now
from graceful.reports import archive, slots
from graceful.reports.journal import Journal
from tests.conftest import StartWorker
from tests.db.samples import a_report
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")


def test_without_a_slot_the_report_waits(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A worker that finds all slots taken leaves its sealed report in the journal, and ends as cleanly as ever."""
    worker = start_worker(settings={"GRACEFUL_REPORT_CONNECTIONS": 1})
    wait_until(lambda: not connection.exists(slots.SLOTS_KEY), 10)  # Its maintenance is over.
    assert slots.take(connection, "another", 1, 60)
    worker.signal()
    assert worker.wait() == 0, worker.output
    (report,) = Journal(connection).entries()
    assert report.worker == worker.name
    assert report.outcome is Outcome.CLEAN
    assert archive.read(report.id) is None
    call_command("archive_reports")
    assert archive.read(report.id) == report
    assert Journal(connection).entries() == []


def test_a_slot_is_given_back(connection: redis.Redis, start_worker: StartWorker) -> None:
    """Workers that end one after the other all store their reports, also with one slot."""
    for _ in range(3):
        report = a_report(requested_at=utc_now(), drained_at=utc_now(), ended_at=utc_now())
        Journal(connection).write(report)
        worker = start_worker(settings={"GRACEFUL_REPORT_CONNECTIONS": 1})
        # Its maintenance, which takes a slot too, is over.
        wait_until(lambda at=report.id: archive.read(at) and not connection.exists(slots.SLOTS_KEY), 10)  # type: ignore[misc]
        worker.signal()
        assert worker.wait() == 0, worker.output
        assert Journal(connection).entries() == []
        assert not connection.exists(slots.SLOTS_KEY)
