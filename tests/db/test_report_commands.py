"""``shutdown_report`` and ``archive_reports``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import CommandError

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive
from graceful.reports.spool import Spool
from graceful.reports.text import local_time
from tests.db.samples import MIDNIGHT, a_clean_report, a_report

pytestmark = pytest.mark.django_db(transaction=True)


def command(name: str, *arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def stored() -> list[ShutdownReport]:
    """Three reports, the newest first."""
    found = [
        a_report(worker="b.1", requested_at=MIDNIGHT + timedelta(hours=3)),
        a_clean_report(worker="a.1", requested_at=MIDNIGHT + timedelta(hours=2)),
        a_report(worker="b.1", requested_at=MIDNIGHT + timedelta(hours=1)),
    ]
    for report in found:
        assert archive.store(report, seconds=5)
    return found


def test_last_as_json_is_the_report_itself(stored: list[ShutdownReport]) -> None:
    """``--last --format json`` prints one object, the report's one JSON form."""
    assert json.loads(command("shutdown_report", "--last", "--format", "json")) == report_json.plain(stored[0])


def test_several_as_json_are_a_list(stored: list[ShutdownReport]) -> None:
    """Without ``--last`` and ``--id`` the JSON is a list, newest first."""
    everything = json.loads(command("shutdown_report", "--format", "json"))
    assert everything == [report_json.plain(report) for report in stored]
    assert json.loads(command("shutdown_report", "--format=json", "--limit=1")) == [report_json.plain(stored[0])]


def test_by_worker_and_by_id(stored: list[ShutdownReport]) -> None:
    """``--worker`` prefers the exact name to the prefix; ``--id`` shows that report alone."""
    of_worker = json.loads(command("shutdown_report", "--worker", "b.1", "--format", "json"))
    assert [each["id"] for each in of_worker] == [stored[0].id, stored[2].id]
    # The beginning of a name is enough, but a whole name is that worker alone.
    begun = json.loads(command("shutdown_report", "--worker", "b", "--format", "json"))
    assert [each["id"] for each in begun] == [stored[0].id, stored[2].id]
    archive.store(a_report(worker="b"), seconds=5)
    assert [each["worker"] for each in json.loads(command("shutdown_report", "--worker", "b", "--format", "json"))] == [
        "b"
    ]
    of_id = json.loads(command("shutdown_report", "--id", stored[1].id, "--format", "json"))
    assert of_id == report_json.plain(stored[1])


def test_text_says_everything(stored: list[ShutdownReport]) -> None:
    """The text shows every fact of the report."""
    text = command("shutdown_report", "--last")
    for fact in (
        "HOOKS FAILED, exit code 70",
        "signal (SIGTERM)",
        "b.1 (pid 4242)",
        "drain 12.50 s",
        "41 finished, 1 failed, 2 in flight",
        "interrupted  12.50 s  job-1  shop.jobs.rebuild_index from default, interrupted 2 times so far",
        "flushed 312 counters",
        "OSError: [Errno 5] Input/output error",
        '  File "shop/hooks.py", line 7, in close',
        "timed out  1.00 s",
        "sentry_sdk is not installed",
        "The scheduler had to be killed.",
    ):
        assert fact in text


def test_text_speaks_local_time(stored: list[ShutdownReport], settings: Any) -> None:
    """The text gives times as the log and the admin do, in the local time zone, with its offset; the JSON is UTC."""
    settings.TIME_ZONE = "Asia/Kolkata"
    assert "requested 2026-03-01 08:30:00.000+05:30\n" in command("shutdown_report", "--last")
    last = json.loads(command("shutdown_report", "--last", "--format", "json"))
    assert last["requested_at"] == "2026-03-01T03:00:00+00:00"


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_time_at_the_edge_of_the_calendar_is_shown(moment: datetime, zone: str, settings: Any) -> None:
    """A moment that does not exist in the local time zone is shown in its own."""
    settings.TIME_ZONE = zone
    assert local_time(moment.replace(tzinfo=UTC))[:4] == f"{moment.year:04d}"


def test_text_of_several_ends_with_the_newest(stored: list[ShutdownReport]) -> None:
    """The text of several reports ends with the newest."""
    text = command("shutdown_report")
    places = [text.index(report.id) for report in stored]
    assert places == sorted(places, reverse=True)


def test_text_cannot_harm_a_terminal(stored: list[ShutdownReport]) -> None:
    """Control characters in names are escaped in the text."""
    odd = a_report(worker="w\x1b[2J\r\n\u202e\u00e4", notes="n\x1b]0;title\x07", requested_at=MIDNIGHT + timedelta(9))
    archive.store(odd, seconds=5)
    text = command("shutdown_report", "--last")
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert r"w\x1b[2J\r\n\u202e\xe4" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "There is no shutdown report yet"),
        (("--last",), "There is no shutdown report yet"),
        (("--worker", "nobody\x1b"), r"name begins with 'nobody\x1b'"),
        (("--id", "none"), "with the id 'none'"),
    ],
)
def test_none_is_exit_code_1(arguments: tuple[str, ...], words: str) -> None:
    """Without a report the command fails and says so."""
    with pytest.raises(CommandError) as caught:
        command("shutdown_report", *arguments)
    assert words in str(caught.value)
    assert caught.value.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--limit", "0"),
        ("--limit", "-1"),
        ("--limit", "many"),
        ("--limit", "\u0663"),
        ("--limit", "9" * 5000),
        ("--id", ""),
        ("--id", "x" * 65),
        ("--format", "xml"),
        ("--last", "--worker", "w"),
    ],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...]) -> None:
    """Invalid options are refused with a message that names the option."""
    with pytest.raises(CommandError, match=r"argument --\w+: "):
        command("shutdown_report", *arguments)


def test_waiting_reports_are_shown(tmp_path: Path, settings: Any) -> None:
    """Reports that still wait in Redis are archived first, and shown."""
    settings.GRACEFUL_SPOOL_DIR = str(tmp_path / "spool")
    settings.RQ_QUEUES = {"default": {"URL": "redis://127.0.0.1:1/0"}}
    report = a_report()
    Spool(tmp_path / "spool").write(report)
    err = StringIO()
    assert json.loads(command("shutdown_report", "--last", "--format=json", stderr=err)) == report_json.plain(report)
    assert err.getvalue() == ""


def test_archiving_stores_what_waits_and_removes_what_is_old(tmp_path: Path, settings: Any) -> None:
    """``archive_reports`` archives what waits, removes old reports, and names unreachable servers."""
    settings.GRACEFUL_SPOOL_DIR = str(tmp_path / "spool")
    settings.GRACEFUL_REPORTS_KEEP = timedelta(days=30)
    settings.RQ_QUEUES = {"default": {"URL": "redis://127.0.0.1:1/0"}}
    now = datetime.now(UTC)
    fresh = a_report(requested_at=now)
    Spool(tmp_path / "spool").write(fresh)
    archive.store(a_report(requested_at=now - timedelta(days=31)), seconds=5)
    out, err = StringIO(), StringIO()
    # Only its exit code makes cron tell somebody.
    with pytest.raises(CommandError, match="are unreachable"):
        call_command("archive_reports", stdout=out, stderr=err)
    assert out.getvalue() == "Reports archived: 1, old reports removed: 1\n"
    assert "Unreachable: the journal in Redis" in err.getvalue()
    assert list(ArchivedReport.objects.values_list("pk", flat=True)) == [fresh.id]
    assert timedelta(days=30) == django_settings.GRACEFUL_REPORTS_KEEP


@pytest.mark.parametrize("name", ["shutdown_report", "archive_reports"])
def test_without_tables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tables both commands fail, and name ``manage.py migrate`` instead of showing a traceback."""
    monkeypatch.setattr(ArchivedReport._meta, "db_table", "no_such_table")
    with pytest.raises(CommandError, match=r"cannot be read: (.|\n)*no_such_table(.|\n)*manage.py migrate graceful"):
        command(name)


def test_check_of_the_database_finds_migrations_that_are_not_applied() -> None:
    """``check --database`` names missing migrations and what to run; it is silent where all are there."""
    # MySQL and MariaDB lack partial indexes, of which Django warns there.
    assert {found.id for found in run_checks(databases=["default"])} <= {"models.W037"}
    call_command("migrate", "graceful", "0001", verbosity=0)
    try:
        (warning,) = [found for found in run_checks(databases=["default"]) if found.id != "models.W037"]
    finally:
        call_command("migrate", "graceful", verbosity=0)
    assert warning.id == "graceful.W003"
    assert "0002" in warning.msg
    assert "0001" not in warning.msg
    assert "manage.py migrate" in str(warning.hint)
    assert {found.id for found in run_checks()} <= {"models.W037"}
