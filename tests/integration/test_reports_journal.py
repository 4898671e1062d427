"""The journal on a real server, and the way from there into the archive."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.core.management import call_command

from graceful.conf import settings
from graceful.core import report_json
from graceful.core.phases import Phase
from graceful.core.records import HookResult, utc_now
from graceful.core.report_json import ENTRY_LIMIT
from graceful.models import ShutdownReport as ArchivedReport
from graceful.models import ShutdownRollup
from graceful.reports import archive, sources
from graceful.reports.journal import JOURNAL_KEY, UNREADABLE_KEY, Journal
from graceful.worker.cluster.maintenance import run_maintenance
from tests.db.samples import HOOKS, a_report
from tests.support.server import Server
from tests.support.waiting import wait_until


def test_what_is_written_is_read(connection: redis.Redis) -> None:
    """A written report is read back unchanged."""
    journal = Journal(connection)
    report = a_report()
    journal.write(report)
    assert journal.entries() == [report]
    journal.remove(report.id, "not there")
    journal.remove()
    assert journal.entries() == []


def test_writing_is_one_command(connection: redis.Redis) -> None:
    """Writing a report takes one command."""
    before = connection.info("stats")["total_commands_processed"]
    Journal(connection).write(a_report())
    # INFO counts itself.
    assert connection.info("stats")["total_commands_processed"] - before == 2


def test_open_and_sealed_are_told_apart(connection: redis.Redis) -> None:
    """Open and sealed reports are returned separately."""
    journal = Journal(connection)
    still_open = a_report(phase=Phase.HOOKS, outcome=None, ended_at=None)
    sealed = a_report()
    journal.write(still_open)
    journal.write(sealed)
    assert journal.entries() == [sealed]
    assert journal.read().open == (still_open,)


def test_a_client_that_decodes_reads_the_same(valkey: Server, connection: redis.Redis) -> None:
    """A client with ``decode_responses`` reads the same reports."""
    report = a_report()
    Journal(connection).write(report)
    decoding = valkey.client(decode_responses=True)
    assert Journal(decoding).entries() == [report]


UNREADABLE = {
    "not JSON": b"\x80\x04\x95pickle",
    "no object": b"[1, 2]",
    "another version": json.dumps({**report_json.plain(a_report(id="x")), "version": 99}).encode(),
    "a wrong type": json.dumps({**report_json.plain(a_report(id="x")), "pid": "many"}).encode(),
    "another report's": report_json.dump(a_report()).encode(),
    "deeply nested": b"[" * 100_000,
    "huge": b'"' + b"x" * (4 * ENTRY_LIMIT) + b'"',
    "empty": b"",
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_entries_are_set_aside(
    connection: redis.Redis, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    """An unreadable entry is moved aside and logged, and the others are read."""
    journal = Journal(connection)
    good = a_report()
    journal.write(good)
    connection.hset(JOURNAL_KEY, "x", value)
    with caplog.at_level(logging.WARNING, "graceful.reports"):
        content = journal.read()
    assert content.sealed == (good,)
    assert content.set_aside == 1
    assert connection.hgetall(UNREADABLE_KEY) == {b"x": value}
    assert connection.hkeys(JOURNAL_KEY) == [good.id.encode()]
    assert UNREADABLE_KEY in caplog.text
    assert len(caplog.text) < 2000
    assert journal.read().set_aside == 0


def test_a_field_that_is_no_text_is_set_aside(connection: redis.Redis) -> None:
    """An entry whose field is not text is moved aside."""
    connection.hset(JOURNAL_KEY, b"\xff\xfe\x00", report_json.dump(a_report()))
    assert Journal(connection).entries() == []
    assert connection.hkeys(UNREADABLE_KEY) == [b"\xff\xfe\x00"]


def test_a_report_of_any_size_can_be_read_back(connection: redis.Redis) -> None:
    """A report of any size is cut to a size that can be read back."""
    hooks = tuple(HookResult(f"hook {n}", HOOKS[1].outcome, traceback="\u00e4" * 100_000) for n in range(1000))
    journal = Journal(connection)
    journal.write(a_report(hooks=hooks))
    assert connection.hstrlen(JOURNAL_KEY, journal.entries()[0].id) <= ENTRY_LIMIT


def test_more_entries_than_fit_one_answer(connection: redis.Redis) -> None:
    """Any number of entries is read, in batches."""
    journal = Journal(connection)
    for _ in range(120):
        journal.write(a_report())
    assert len(journal.entries()) == 120


@pytest.mark.django_db(transaction=True)
def test_sealed_entries_are_archived(connection: redis.Redis) -> None:
    """Sealed entries are archived and removed; open ones stay."""
    journal = Journal(connection)
    sealed, still_open = a_report(), a_report(phase=Phase.DRAINING, outcome=None)
    journal.write(sealed)
    journal.write(still_open)
    assert archive.archive_pending(journal, 5) == 1
    assert archive.read(sealed.id) == sealed
    assert connection.hkeys(JOURNAL_KEY) == [still_open.id.encode()]


@pytest.mark.django_db(transaction=True)
def test_every_server_of_the_queues_is_visited_once(
    connection: redis.Redis, own_valkey: Server, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Redis server of the queues is read once."""
    queues: dict[str, dict[str, Any]] = {
        "default": {"URL": valkey.url, "DEFAULT_TIMEOUT": 1},
        "high": {"URL": valkey.url, "ASYNC": False},
        "other": {"URL": own_valkey.url},
    }
    monkeypatch.setattr(django_settings, "RQ_QUEUES", queues)
    assert len(sources.journals(1)) == 2
    first, second = a_report(), a_report()
    Journal(connection).write(first)
    Journal(own_valkey.client()).write(second)
    assert sources.archive_everything(5) == sources.ArchiveRun(2, ())
    assert ArchivedReport.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_server_that_hangs_does_not_keep_the_others_waiting(
    connection: redis.Redis, own_valkey: Server, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung server takes its share of the time; the reports of the others are archived."""
    monkeypatch.setattr(django_settings, "RQ_QUEUES", {"a": {"URL": own_valkey.url}, "b": {"URL": valkey.url}})
    report = a_report()
    Journal(connection).write(report)
    own_valkey.pause()
    started = time.monotonic()
    run = sources.archive_everything(2)
    assert time.monotonic() - started < 4
    assert run.archived == 1
    assert len(run.failures) == 1


@pytest.mark.django_db(transaction=True)
def test_a_server_that_is_away_is_told_not_raised(own_valkey: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An unreachable server is returned as a failure and logged, not raised."""
    own_valkey.stop()
    started = time.monotonic()
    run = sources.archive_everything(2)
    assert time.monotonic() - started < 2
    assert run.archived == 0
    assert run.failures[0].startswith("the journal in Redis: ")
    with caplog.at_level(logging.WARNING, "graceful.reports"):
        assert archive.archive_pending(Journal(own_valkey.client()), 2) == 0
    assert "could not be archived" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_page_waits_for_a_hanging_server_once_and_briefly(own_valkey: Server) -> None:
    """A page waits for a hung server once and briefly, and then not at all for a while."""
    own_valkey.pause()
    page_archiver = sources.PageArchiver()
    started = time.monotonic()
    assert page_archiver.run(0.3) is False
    assert time.monotonic() - started < 2
    started = time.monotonic()
    for _ in range(50):
        assert page_archiver.run(0.3) is False
    assert time.monotonic() - started < 0.5


@pytest.mark.django_db(transaction=True)
def test_a_page_archives_reports(connection: redis.Redis) -> None:
    """A page archives the reports that wait."""
    report = a_report()
    Journal(connection).write(report)
    assert sources.PageArchiver().run(5) is True
    assert archive.read(report.id) == report


@pytest.mark.django_db(transaction=True)
def test_whoever_archives_reports_adds_them_up(connection: redis.Redis) -> None:
    """A page, a worker's maintenance and ``archive_reports`` each count what they archived, for the trends."""

    def page() -> None:
        archiver = sources.PageArchiver()
        archiver.run(5)
        # The page goes on before everything is added up; until then its thread archives nothing else.
        wait_until(lambda: archiver._running.acquire(blocking=False), 10)

    ways: list[Callable[[], object]] = [
        page,
        lambda: run_maintenance(connection, settings()),
        lambda: call_command("archive_reports", stdout=StringIO()),
    ]
    for number, way in enumerate(ways, start=1):
        Journal(connection).write(a_report(requested_at=utc_now()))
        way()
        assert ShutdownRollup.objects.get().count == number
