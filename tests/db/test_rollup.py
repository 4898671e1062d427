"""Roll-ups: each report is counted once, whoever counts, and nothing is lost when old days are folded."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.models import Sum
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from graceful.core.histogram import BOUNDS
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import HookResult, InFlightJob, JobTally, Spans
from graceful.models import HookRollup, ShutdownRollup
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive, rollup
from graceful.reports.rollup import NO_DAY, OTHER, fold_old, roll_up
from tests.db.samples import MIDNIGHT, a_clean_report, a_report
from tests.db.stored import save

pytestmark = pytest.mark.django_db(transaction=True)

ALWAYS = 60.0


def counted() -> int:
    return ShutdownRollup.objects.aggregate(n=Sum("count"))["n"] or 0


def test_one_report() -> None:
    """A report is counted under its day in UTC, release, outcome and reason; its hooks under day, name and outcome."""
    save(a_report())
    assert roll_up(ALWAYS) == 1
    row = ShutdownRollup.objects.get()
    assert (row.day, row.release, row.outcome, row.reason) == (
        date(2026, 3, 1),
        "2026.03.1",
        Outcome.HOOKS_FAILED,
        Reason.SIGNAL,
    )
    assert (row.count, row.jobs_finished, row.jobs_failed, row.jobs_interrupted) == (1, 41, 1, 1)
    assert (row.drain_seconds, row.hooks_seconds, row.total_seconds) == (12.5, 1.5, 14.25)
    assert [BOUNDS[row.drain_histogram.index(1)], BOUNDS[row.hooks_histogram.index(1)]] == [15.0, 2.5]
    hooks = {hook.name: (hook.outcome, hook.count, hook.seconds) for hook in HookRollup.objects.all()}
    # The skipped one has not run.
    assert hooks == {
        "flush statistics": (HookOutcome.OK, 1, 0.042),
        "close pool": (HookOutcome.FAILED, 1, 0.31),
        "drain telemetry": (HookOutcome.TIMED_OUT, 1, 1.0),
    }


def test_each_report_is_counted_once() -> None:
    """A second run counts only what came since, and adds it to the rows that are there."""
    save(*(a_report() for _ in range(3)))
    assert roll_up(ALWAYS) == 3
    save(a_report())
    assert roll_up(ALWAYS) == 1
    assert roll_up(ALWAYS) == 0
    row = ShutdownRollup.objects.get()
    assert (row.count, row.jobs_finished, row.drain_seconds, sum(row.total_histogram)) == (4, 164, 50.0, 4)
    assert HookRollup.objects.get(name="close pool").count == 4


def test_what_is_not_sealed_is_not_counted() -> None:
    """A report without an outcome is no shutdown yet; spans that were not reached are in no histogram."""
    save(a_report(outcome=None), a_report(seconds=Spans(), reason=None, hooks=()))
    assert roll_up(ALWAYS) == 1
    row = ShutdownRollup.objects.get()
    assert (row.reason, row.drain_seconds, sum(row.drain_histogram)) == ("", 0.0, 0)


def test_no_more_than_asked_for_and_no_longer() -> None:
    """A run ends at its number of reports, and begins no transaction after its time."""
    save(*(a_report() for _ in range(5)))
    assert roll_up(ALWAYS, most=3) == 3
    assert roll_up(0.0) == 0
    assert counted() == 3


def test_a_backlog_is_taken_day_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more reports waiting than one transaction takes, each is counted, and a transaction reads one day."""
    monkeypatch.setattr(rollup, "BATCH", 4)
    days = [MIDNIGHT + timedelta(days=number % 5) for number in range(33)]
    save(*(a_clean_report(requested_at=day) for day in days))
    with CaptureQueriesContext(connections["default"]) as queries:
        assert roll_up(ALWAYS) == 33
    assert dict(ShutdownRollup.objects.values_list("day", "count")) == {
        date(2026, 3, 1 + number): 7 if number < 3 else 6 for number in range(5)
    }
    of_days = [query["sql"] for query in queries if '"day" IN' in query["sql"]]
    assert sum("," in sql.split('"day" IN (')[1].split(")")[0] for sql in of_days) <= 4  # The last batch only.


def test_at_once_each_report_is_counted_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However many processes count at once, on rows that are missing or there: once, and none is in another's way."""
    monkeypatch.setattr(rollup, "BATCH", 20)
    save(*(a_report(release=f"r{number % 20}") for number in range(80)))
    ready = threading.Barrier(4)
    taken: list[int] = []

    def count() -> None:
        ready.wait()
        try:
            while found := roll_up(ALWAYS):
                taken.append(found)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while roll_up(ALWAYS):
        pass  # What those left to each other.
    if connections["default"].vendor == "mysql":
        # InnoDB locks gaps between rows: one of two that insert may be told of a deadlock, and what it had waits.
        assert all("1213" in record.getMessage() for record in caplog.records), caplog.text
    else:
        assert caplog.text == ""  # Neither a deadlock nor a lock that could not be had.
    assert counted() == 80
    assert HookRollup.objects.aggregate(n=Sum("count"))["n"] == 240
    assert sum(row.jobs_interrupted for row in ShutdownRollup.objects.all()) == 80
    assert not ArchivedReport.objects.filter(rolled_up=False).exists()


def test_a_run_that_fails_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails in the middle of a transaction is rolled back as a whole, mark and sums, and counted next time."""
    save(a_report(), a_report())

    def fails(*_: object) -> Any:
        raise OperationalError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(rollup, "_hooks", fails)
        assert roll_up(ALWAYS) == 0
    assert "could not be added up for the trends: the disk is full" in caplog.text
    assert counted() == 0
    assert roll_up(ALWAYS) == 2
    assert counted() == 2


UNKNOWN = JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.UNKNOWN),))
KNOWN = JobTally(in_flight=(InFlightJob("1", "f", "default", JobOutcome.KILLED),))


def test_an_amended_report_is_not_counted_again() -> None:
    """A report that takes the place of a counted one counts as counted; one of an uncounted one is counted."""
    report, uncounted = a_report(jobs=UNKNOWN), a_report(jobs=UNKNOWN)
    assert archive.store(report, seconds=5)
    assert roll_up(ALWAYS) == 1
    assert archive.store(uncounted, seconds=5)
    for each in (report, uncounted):
        amended = each._replace(jobs=KNOWN)
        assert archive.store(amended, seconds=5)
        assert archive.read(each.id) == amended
    assert roll_up(ALWAYS) == 1
    assert counted() == 2


def test_a_report_that_is_counted_while_it_is_amended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting between the look at the stored report and its replacement does not make it count twice."""
    report = a_report(jobs=UNKNOWN)
    assert archive.store(report, seconds=5)

    def counted_meanwhile(*_: object) -> bool:
        assert roll_up(ALWAYS) == 1
        return True

    monkeypatch.setattr(archive, "knows_more", counted_meanwhile)
    assert archive.store(report._replace(jobs=KNOWN), seconds=5)
    assert ArchivedReport.objects.get().jobs.get().outcome == JobOutcome.KILLED
    assert roll_up(ALWAYS) == 0
    assert counted() == 1


def test_the_day_is_that_of_utc() -> None:
    """Days are those of UTC, whatever the project's time zone, and with USE_TZ off too."""
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Shanghai"):
        save(*(a_clean_report(requested_at=MIDNIGHT + timedelta(hours=hour)) for hour in (-1, 1, 23)))
        roll_up(ALWAYS)
    assert dict(ShutdownRollup.objects.values_list("day", "count")) == {date(2026, 2, 28): 1, date(2026, 3, 1): 2}


def test_names_without_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases and hooks beyond a number in a day are counted together; a name that is there keeps its own row."""
    monkeypatch.setattr(rollup, "MOST_NAMES", 3)
    for number in (*range(6), 0):
        hook = HookResult(f"hook-{number}" + "x" * 300, HookOutcome.OK, 0.1, 1.0)
        save(a_clean_report(release=f"r{number}", hooks=(hook,)))
        roll_up(ALWAYS)
    assert dict(ShutdownRollup.objects.values_list("release", "count")) == {"r0": 2, "r1": 1, "r2": 1, OTHER: 3}
    counts = sorted(HookRollup.objects.values_list("count", flat=True))
    assert counts == [1, 1, 2, 3]
    assert all(len(name) <= 255 for name in HookRollup.objects.values_list("name", flat=True))


def test_old_days_are_folded() -> None:
    """Days older than the reports are kept lose their day and release, and nothing else: sums never shrink."""
    now = datetime.now(UTC)
    for days in (1, 40, 41, 42):
        save(a_report(requested_at=now - timedelta(days=days), release=f"r{days}"))
    roll_up(ALWAYS)
    assert fold_old(timedelta(days=30)) == 3 + 9
    assert dict(ShutdownRollup.objects.values_list("day", "count")) == {
        NO_DAY: 3,
        (now - timedelta(days=1)).date(): 1,
    }
    old = ShutdownRollup.objects.get(day=NO_DAY)
    assert (old.release, old.drain_seconds, sum(old.total_histogram), old.jobs_interrupted) == ("", 37.5, 3, 3)
    assert HookRollup.objects.get(day=NO_DAY, name="close pool").count == 3
    assert fold_old(timedelta(days=30)) == 0
    save(a_report(requested_at=now - timedelta(days=40)))
    roll_up(ALWAYS)
    fold_old(timedelta(days=30))
    assert ShutdownRollup.objects.get(day=NO_DAY).count == 4
    assert fold_old(timedelta(days=10**6)) == 0


def test_folding_and_counting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old days that are counted while they are folded lose nothing."""
    monkeypatch.setattr(rollup, "BATCH", 2)
    monkeypatch.setattr(rollup, "FOLDED_ROWS", 2)
    old = datetime.now(UTC) - timedelta(days=50)
    save(*(a_report(requested_at=old - timedelta(days=number % 4), release=f"r{number % 3}") for number in range(48)))
    done = threading.Event()

    def fold() -> None:
        try:
            while not done.is_set():
                fold_old(timedelta(days=30))
        finally:
            connections.close_all()

    thread = threading.Thread(target=fold)
    thread.start()
    try:
        # A run ends early where another one has everything locked.
        while ArchivedReport.objects.filter(rolled_up=False).exists():
            roll_up(ALWAYS)
    finally:
        done.set()
        thread.join()
    fold_old(timedelta(days=30))
    assert set(ShutdownRollup.objects.values_list("day", flat=True)) == {NO_DAY}
    assert counted() == 48
    assert HookRollup.objects.aggregate(n=Sum("count"))["n"] == 3 * 48


def test_without_tables(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where ``migrate`` was not run yet nothing is counted; the archive has a line for that, and this none."""
    save(a_report())
    monkeypatch.setattr(ShutdownRollup._meta, "db_table", "no_such_table")
    assert roll_up(ALWAYS) == 0
    assert fold_old(timedelta(days=30)) == 0
    assert caplog.text == ""
    assert ArchivedReport.objects.filter(rolled_up=False).count() == 1
