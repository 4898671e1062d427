"""The archive: what goes in comes out, once, whatever else goes on."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from graceful.core import report_json
from graceful.core.phases import JobOutcome
from graceful.core.records import InFlightJob, JobTally, ShutdownReport
from graceful.models import ReportedHook, ReportedJob
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive, log
from graceful.reports.rows import record_of, rows_of
from graceful.threads import bounded
from tests.db.samples import HOOKS, MIDNIGHT, a_report, reports

pytestmark = pytest.mark.django_db(transaction=True)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(report=reports())
def test_any_report_comes_back_as_it_was(report: ShutdownReport) -> None:
    """A stored report is read back unchanged, whatever it holds."""
    with transaction.atomic():
        archive._insert(rows_of(report), "default", archive.Deadline.after(5))
        found = archive.read(report.id)
        transaction.set_rollback(True)
    assert found == report
    assert report_json.dump(found) == report_json.dump(report)


def test_queues_whose_names_a_database_takes_for_one() -> None:
    """A report of queues that differ in nothing but case is stored, also where the collation sees no difference."""
    report = a_report(queues=("high", "High", "HIGH"))
    assert archive.store(report, seconds=5)
    assert archive.read(report.id) == report


def test_times_come_back_where_django_keeps_naive_ones() -> None:
    """With USE_TZ off times are stored naive and read back aware."""
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Vienna"):
        report = a_report()
        assert archive.store(report, seconds=5)
        assert archive.read(report.id) == report
        assert ArchivedReport.objects.get().happened_at == datetime(2026, 3, 1, 2, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, MIDNIGHT + timedelta(hours=1)),
        ({"requested_at": None}, MIDNIGHT + timedelta(hours=1, seconds=14.25)),
        ({"requested_at": None, "ended_at": None}, MIDNIGHT),
    ],
)
def test_every_report_has_a_time(changes: dict[str, Any], expected: datetime) -> None:
    """``happened_at`` is the first known of request, end and start."""
    archive.store(a_report(**changes), seconds=5)
    assert ArchivedReport.objects.get().happened_at == expected


def test_text_that_no_database_takes_is_stored_without_it() -> None:
    """NUL and lone surrogates are replaced, and the report is stored."""
    hooks = (HOOKS[0].__class__("a\x00b", HOOKS[0].outcome, error="x\ud800y"),)
    report = a_report(hooks=hooks, queues=("q\x00",), worker="w\x00" * 400)
    assert archive.store(report, seconds=5)
    row = ArchivedReport.objects.get()
    assert record_of(row).hooks[0].name == "a\ufffdb"
    assert row.queues == ["q\ufffd"]
    assert len(row.worker) == 255


def test_storing_twice_changes_nothing() -> None:
    """Storing a report again changes nothing and returns True."""
    report = a_report()
    assert archive.store(report, seconds=5)
    assert archive.store(a_report(id=report.id, worker="another"), seconds=5)
    assert archive.read(report.id) == report
    assert (ArchivedReport.objects.count(), ReportedHook.objects.count(), ReportedJob.objects.count()) == (1, 4, 2)


def test_storing_at_once_stores_once() -> None:
    """Concurrent stores of the same reports store each once."""
    several = [a_report() for _ in range(5)]
    answers: list[bool] = []

    def store_all() -> None:
        answers.extend(archive.store(report, seconds=20) for report in several)

    threads = [threading.Thread(target=store_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 20
    assert (ArchivedReport.objects.count(), ReportedHook.objects.count(), ReportedJob.objects.count()) == (5, 20, 10)


def test_the_connection_of_the_caller_does_not_matter() -> None:
    """A closed connection or a rolled back transaction of the caller does not affect the store."""
    report = a_report()
    connection.close()
    assert archive.store(report, seconds=5)
    assert connection.connection is None
    with transaction.atomic():
        second = a_report()
        assert archive.store(second, seconds=5)
        transaction.set_rollback(True)
    assert archive.read(second.id) == second


def test_a_report_is_stored_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure while storing leaves no part of the report."""

    def refuse(*_: object) -> None:
        raise archive.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(ReportedJob.objects, "bulk_create", refuse)
    monkeypatch.setattr(type(ReportedJob.objects.all()), "bulk_create", refuse)
    with caplog.at_level(logging.WARNING, "graceful.reports"):
        assert not archive.store(a_report(), seconds=5)
    assert "server closed the connection" in caplog.text
    assert not ArchivedReport.objects.exists()


def test_a_database_that_hangs_does_not_hold_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hung database blocks the caller no longer than ``seconds``."""
    go_on = threading.Event()
    monkeypatch.setattr(archive, "fresh_connection", lambda *_: go_on.wait(30))
    started = time.monotonic()
    try:
        with caplog.at_level(logging.WARNING, "graceful.reports"):
            assert archive.store(a_report(), seconds=0.2) is False
    finally:
        go_on.set()
    assert time.monotonic() - started < 5
    assert "took longer" in caplog.text


def test_a_database_that_is_away_is_an_answer_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unreachable database ``store`` returns False and logs why."""
    broken = {**connection.settings_dict, "ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/at/all.sqlite3"}
    monkeypatch.setitem(archive.connections.settings, "default", broken)
    assert archive.store(a_report(), seconds=5) is False


def test_a_closed_pool_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are stored even if a hook has closed the connection pool."""
    options = {**connection.settings_dict["OPTIONS"], "pool": {"max_size": 2}}
    pooled = {**connection.settings_dict, "OPTIONS": options, "CONN_MAX_AGE": 60, "AUTOCOMMIT": False}
    monkeypatch.setitem(archive.connections.settings, "default", pooled)

    def options_of_a_fresh_one() -> dict[str, object]:
        with archive.fresh_connection("default", archive.Deadline.after(1)):
            return dict(archive.connections["default"].settings_dict["OPTIONS"])

    fresh = bounded(options_of_a_fresh_one, 5).value
    assert fresh is not None
    assert "pool" not in fresh
    report = a_report()
    # Committed, too, where the project does that itself.
    assert archive.store(report, seconds=5)
    assert archive.read(report.id) == report
    assert options["pool"] == {"max_size": 2}


class Held:
    """A journal of the test's own."""

    def __init__(self, *waiting: ShutdownReport) -> None:
        self.waiting = {report.id: report for report in waiting}
        self.aside: dict[str, str] = {}

    def entries(self) -> list[ShutdownReport]:
        return list(self.waiting.values())

    def remove(self, *report_ids: str) -> None:
        for report_id in report_ids:
            self.waiting.pop(report_id, None)

    def set_aside(self, report_id: str, why: str) -> None:
        self.aside[report_id] = why
        self.waiting.pop(report_id)


def test_what_waits_is_archived_and_removed() -> None:
    """Sealed reports are archived and removed from journal and spool."""
    held = Held(a_report(), a_report())
    archive.store(next(iter(held.waiting.values())), seconds=5)
    assert archive.archive_pending(held, 5) == 2
    assert held.waiting == {}
    assert ArchivedReport.objects.count() == 2
    assert archive.archive_pending(held, 5) == 0


def test_report_that_knows_more_takes_the_place_of_the_stored_one() -> None:
    """A report that knows a job's later outcome replaces the stored one."""
    report = a_report(jobs=JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.UNKNOWN),)))
    assert archive.store(report, seconds=5)
    amended = report._replace(jobs=JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.KILLED),)))
    held = Held(amended)
    assert archive.archive_pending(held, 5) == 1
    assert archive.read(report.id) == amended
    assert archive.store(report, seconds=5)
    assert archive.read(report.id) == amended


def test_report_that_says_something_else_does_not_take_the_place_of_the_stored_one() -> None:
    """Any other difference leaves the stored report as it is."""
    unknown = JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.UNKNOWN),))
    known = JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.KILLED),))
    report = a_report(jobs=unknown)
    assert archive.store(report, seconds=5)
    assert archive.store(report._replace(jobs=known, hooks=(), exit_code=None), seconds=5)
    assert archive.read(report.id) == report


def test_what_cannot_be_stored_does_not_block_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that the database refuses is set aside, and the others are stored."""
    poison, good = a_report(started_at=MIDNIGHT), a_report(started_at=MIDNIGHT + timedelta(1))
    insert = archive._insert

    def refuse_poison(rows: Any, *rest: Any, **options: Any) -> bool:
        if rows.report.pk == poison.id:
            raise archive.DatabaseError("value out of range")
        return insert(rows, *rest, **options)

    monkeypatch.setattr(archive, "_insert", refuse_poison)
    held = Held(poison, good)
    assert archive.archive_pending(held, 5) == 1
    assert held.waiting == {}
    assert "value out of range" in held.aside[poison.id]


def test_nothing_leaves_the_journal_without_being_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unreachable database the reports stay in the journal."""

    def away(*_: object) -> None:
        raise archive.OperationalError("connection refused")

    monkeypatch.setattr(archive, "fresh_connection", away)
    held = Held(a_report())
    assert archive.archive_pending(held, 5) == 0
    assert len(held.waiting) == 1
    assert not held.aside


@pytest.mark.parametrize(
    "error",
    [
        archive.OperationalError("no such table: graceful_shutdownreport"),
        archive.OperationalError("table graceful_shutdownreport has no column named grace_period"),
        archive.ProgrammingError('relation "graceful_shutdownreport" does not exist\nLINE 1: INSERT INTO'),
    ],
)
def test_reports_wait_for_missing_tables(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the tables reports stay in the journal, none is set aside, and the one-line warning names ``migrate``."""

    def without_tables(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(archive, "_insert", without_tables)
    held = Held(a_report(), a_report())
    assert archive.archive_pending(held, 5) == 0
    assert len(held.waiting) == 2
    assert not held.aside
    (record,) = caplog.records
    assert "run: manage.py migrate" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_database_that_is_away_needs_no_migrate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the database is unreachable nobody is told to run ``migrate``."""

    def away(*_: object) -> None:
        raise archive.OperationalError("connection refused")

    monkeypatch.setattr(archive, "fresh_connection", away)
    assert not archive.store(a_report(), seconds=5)
    assert [record.msg for record in caplog.records] == [log.NOT_STORED]


def test_old_reports_are_removed_in_batches() -> None:
    """Old reports are removed in transactions of at most ``batch`` reports."""
    now = datetime.now(UTC)
    for days in (1, 5, 91, 92, 93, 94, 95):
        archive.store(a_report(requested_at=now - timedelta(days=days)), seconds=5)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert archive.remove_old(timedelta(days=90), batch=2) == 5
    assert sum("BEGIN" in query["sql"] for query in queries) == 3
    assert ArchivedReport.objects.count() == 2
    assert (ReportedHook.objects.count(), ReportedJob.objects.count()) == (8, 4)
    assert archive.remove_old(timedelta(days=10**6)) == 0
