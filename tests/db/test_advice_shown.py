"""Where advice is shown besides the page of trends: the command, and a check that must be asked for."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from graceful.core.phases import HookOutcome
from graceful.core.records import HookResult
from graceful.models import HookRollup
from graceful.models import ShutdownReport as ArchivedReport
from tests.db.stored import save
from tests.db.test_figures import a_job, a_shutdown

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_redis(settings: Any, tmp_path: Any) -> None:
    """No server to archive from."""
    settings.RQ_QUEUES = {}
    settings.GRACEFUL_SPOOL_DIR = str(tmp_path / "spool")


@pytest.fixture
def slow_jobs() -> None:
    """Two days of shutdowns, each of which interrupted a job; a hook times out."""
    hook = HookResult("shop.leave", HookOutcome.TIMED_OUT, 1.0, 1.0)
    save(*(a_shutdown(a_job(), drain=17.0, ago=number + 1, hooks=(hook,)) for number in range(48)))


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("shutdown_report", "--advice", *arguments, stdout=out)
    return out.getvalue()


def found_by_checks(**options: Any) -> list[checks.CheckMessage]:
    return [each for each in checks.run_checks(**options) if each.id == "graceful.W004"]


def test_the_command_shows_the_advice(slow_jobs: None) -> None:
    """``shutdown_report --advice`` prints each piece of advice with its figures, and adds up what waits before."""
    text = command()
    assert sum(row.count for row in HookRollup.objects.all()) == 48
    assert "* Drain p99 is at least 17 s, hooks p99 0.5 s: with a GRACEFUL_TIMEOUT of 25 s, 100.0 % of" in text
    assert "  From 48 shutdowns with this grace period, between " in text
    assert "* The hook shop.leave timed out 48 times (100.0 %)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_command_as_json(slow_jobs: None) -> None:
    """With ``--format json`` it is a list of objects."""
    advice = json.loads(command("--format", "json"))
    assert [each["about"] for each in advice] == ["grace", "jobs", "hooks"]
    assert all(each["warning"] and each["text"] and each["basis"] for each in advice)


def test_the_command_without_advice() -> None:
    """Where there is none it says so, and succeeds."""
    assert command() == "No advice: too few shutdowns are known, or nothing was remarkable.\n"
    assert json.loads(command("--format", "json")) == []
    with pytest.raises(CommandError, match="not allowed with"):
        command("--last")


def test_the_command_without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tables it names ``manage.py migrate``."""
    monkeypatch.setattr(ArchivedReport._meta, "db_table", "no_such_table")
    with pytest.raises(CommandError, match=r"manage\.py migrate graceful"):
        command()


def test_the_check_is_asked_for(slow_jobs: None) -> None:
    """``check --database default`` warns of what should change, with the figures as its hint."""
    call_command("archive_reports", stdout=StringIO())
    found = found_by_checks(databases=["default"])
    assert [each.level for each in found] == [checks.WARNING] * 3
    assert "Drain p99 is at least 17 s" in found[0].msg
    assert found[0].hint is not None
    assert found[0].hint.startswith("From 48 shutdowns with this grace period, between ")
    assert found[0].hint.endswith("manage.py shutdown_report --advice says the same.")


def test_good_news_is_no_warning() -> None:
    """What is well is told by the command, and not by the check."""
    save(*(a_shutdown(ago=number + 1) for number in range(30)))
    assert "No job was interrupted" in command()
    assert found_by_checks(databases=["default"]) == []


@pytest.mark.parametrize("databases", [None, []])
def test_checks_of_a_start_query_nothing(slow_jobs: None, databases: list[str] | None) -> None:
    """A plain ``check``, as every command runs at its start, does not ask the database."""
    with CaptureQueriesContext(connection) as queries:
        assert [each for each in checks.run_checks(databases=databases) if "graceful" in str(each.id)] == []
    assert len(queries) == 0


def test_migrate_does_not_ask(slow_jobs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """``migrate`` runs the checks of its database before the tables are up to date."""
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert found_by_checks(databases=["default"]) == []


def test_the_check_without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing tables are no error of this check."""
    monkeypatch.setattr(ArchivedReport._meta, "db_table", "no_such_table")
    assert found_by_checks(databases=["default"]) == []
