"""``graceful_top`` beside real workers: one table for scripts, and a live one on a real terminal."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import redis
from django.core.management import call_command
from django.core.management.base import CommandError
from rq import Queue

from graceful.core import report_json
from graceful.core.records import ShutdownReport, utc_now
from graceful.management.fleet_table import HEADS
from graceful.reports.journal import JOURNAL_KEY
from graceful.worker.cluster.registration import HEARTBEATS_KEY
from tests.conftest import StartWorker
from tests.support import jobs, resumable_jobs
from tests.support.server import Server
from tests.support.terminals import CTRL_C, TerminalProcess
from tests.support.waiting import let_pass, wait_until


def rows() -> dict[str, str]:
    """The rows of ``graceful_top --once``, by worker."""
    out = StringIO()
    call_command("graceful_top", "--once", stdout=out)
    lines = out.getvalue().splitlines()
    assert tuple(lines[0].split()) == HEADS
    place = lines[0].index("worker")
    return {line[place:].split()[0]: line for line in lines[1:]}


def test_each_state_of_a_worker(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Idle, busy, quiet, draining, in an exit hook: each is shown, with what it has in flight and its time left."""
    settings = {"GRACEFUL_RELEASE": "2026.11.25-1"}
    idle = start_worker(name="idle-1", settings=settings)
    wait_until(lambda: rows().keys() == {"idle-1"})
    assert rows()["idle-1"].split()[:4] == ["idle", "idle-1", "2026.11.25-1", os.uname().nodename]
    idle.signal(signal.SIGTSTP)
    wait_until(lambda: rows()["idle-1"].startswith("quiet "))
    hooks = {"GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.exit_note", "tests.support.worker_hooks.naps"]}
    busy = start_worker(name="busy-1", settings=hooks, environment={"TEST_NOTES": str(tmp_path / "notes")})
    job = queue.enqueue(resumable_jobs.slow_at, 39, 200)
    wait_until(lambda: connection.exists(resumable_jobs.ITEMS + job.id))
    row = rows()["busy-1"]
    assert row.startswith("busy ")
    assert f" {job.id}  " in row
    assert row.split()[-4:] == ["39", "of", "200", "tests.support.resumable_jobs.slow_at"]
    busy.signal()
    wait_until(lambda: re.match(r"draining +\d+ s +busy-1 ", rows().get("busy-1", "")))
    let_pass(1.1, "two signals within a second are one")
    busy.signal()
    wait_until(lambda: re.match(r"hooks +\d+ s .* hook 2 +tests.support.worker_hooks.naps$", rows().get("busy-1", "")))
    idle.signal()
    assert idle.wait(10) == os.EX_OK
    wait_until(lambda: "idle-1" not in rows())


def test_nothing_and_nobody(connection: redis.Redis, own_valkey: Server) -> None:
    """Without workers the table has its heads alone; an unreachable Redis is an error that names it."""
    assert rows() == {}
    own_valkey.stop()
    with pytest.raises(CommandError, match="connecting to"):
        rows()


def test_names_cannot_harm_a_terminal(connection: redis.Redis) -> None:
    """What stands in Redis is escaped, whoever wrote it."""
    odd = "w\x1b[2J\r\n\u202e\u00e4"
    report = ShutdownReport("0" * 32, odd, odd, 1, ("default",), "a.B", utc_now(), release=odd)
    connection.hset(JOURNAL_KEY, report.id, report_json.dump(report))
    connection.zadd(HEARTBEATS_KEY, {report.id: 1})
    out = StringIO()
    call_command("graceful_top", "--once", stdout=out)
    text = out.getvalue()
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert r"w\x1b[2J\r\n\u202e\xe4" in text
    assert text.splitlines()[1].startswith("silent ")


@pytest.fixture
def top(connection: redis.Redis, valkey: Server) -> Iterator[TerminalProcess]:
    """``graceful_top`` on a terminal."""
    environment = {"DATABASE_URL": "sqlite://", "TEST_REDIS_URL": valkey.url}
    process = TerminalProcess(["graceful_top"], environment, columns=160)
    yield process
    process.close()


@pytest.mark.parametrize("key", [b"q", CTRL_C])
def test_it_refreshes_until_a_key_is_pressed(key: bytes, connection: redis.Redis, top: TerminalProcess) -> None:
    """The table changes as the workers do; q and Ctrl+C end it, and the terminal has its own screen and cursor back."""
    top.wait_seen("0 workers")
    report = ShutdownReport("0" * 32, "web-1", "host", 1, ("default",), "a.B", utc_now())
    connection.hset(JOURNAL_KEY, report.id, report_json.dump(report))
    connection.zadd(HEARTBEATS_KEY, {report.id: connection.time()[0]})
    top.wait_seen("1 worker: 1 idle")
    many = {each.id: report_json.dump(each) for each in (report._replace(id=f"{n:032x}") for n in range(40))}
    connection.hset(JOURNAL_KEY, mapping=many)
    top.wait_seen(r"and \d+ more")
    top.press(key)
    assert top.wait(5) == 0
    assert top.raw.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in top.raw


def test_without_a_terminal_it_prints_one_table(connection: redis.Redis) -> None:
    """In a pipe it ends by itself, also without ``--once``; that there is no worker is said beside the table."""
    out, err = StringIO(), StringIO()
    call_command("graceful_top", stdout=out, stderr=err)
    assert tuple(out.getvalue().split()) == HEADS
    assert err.getvalue() == "No graceful worker is registered on the servers that RQ_QUEUES names.\n"


def test_jobs_are_only_read(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A payload that cannot be unpickled is no concern of it, and nothing in Redis changes."""
    worker = start_worker(name="reader-1")
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    connection.hset(job.key, "data", b"\x80 no pickle")
    before = {key: connection.dump(key) for key in connection.keys("rq:job:*")}
    assert rows()["reader-1"].startswith("busy ")
    assert {key: connection.dump(key) for key in connection.keys("rq:job:*")} == before
    worker.clear()
