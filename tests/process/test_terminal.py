"""What a person sees on a terminal when a worker stops, on a real pseudo-terminal with real keys."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from graceful.reports.journal import Journal
from tests.support import jobs, resumable_jobs
from tests.support.server import Server
from tests.support.terminals import CTRL_C, STOP, TerminalProcess, shown
from tests.support.waiting import let_pass, wait_until

HOOKS = ["tests.support.worker_hooks.exit_note", "tests.support.worker_hooks.failing"]
OnTerminal = Callable[..., TerminalProcess]


@pytest.fixture
def on_terminal(connection: redis.Redis, valkey: Server, tmp_path: Path) -> Iterator[OnTerminal]:
    """Start a worker on a terminal, and wait until it is there."""
    started: list[TerminalProcess] = []

    def start(
        environment: dict[str, str] | None = None, options: Sequence[str] = (), **arguments: Any
    ) -> TerminalProcess:
        settings = {"GRACEFUL_EXIT_HOOKS": HOOKS, "GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")}
        environ = {
            "DATABASE_URL": "sqlite://",
            "TEST_REDIS_URL": valkey.url,
            "TEST_NOTES": str(tmp_path / "notes"),
            "TEST_GRACEFUL_SETTINGS": json.dumps(settings),
            **(environment or {}),
        }
        name = f"on-terminal-{len(started)}"
        worker = TerminalProcess(["runworker_graceful", "--name", name, *options], environ, **arguments)
        started.append(worker)
        wait_until(lambda: connection.hget(f"rq:worker:{name}", "state") in (b"idle", b"busy"), 20, lambda: worker.raw)
        return worker

    yield start
    for worker in started:
        worker.close()


def at_number(connection: redis.Redis, queue: Queue) -> None:
    """Have the worker work at the 40th of 200 numbers, for longer than the test."""
    job = queue.enqueue(resumable_jobs.slow_at, 39, 200)
    wait_until(lambda: connection.exists(resumable_jobs.ITEMS + job.id), 20)


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_a_live_line_while_the_job_is_waited_for(
    worker_class: str, connection: redis.Redis, queue: Queue, on_terminal: OnTerminal
) -> None:
    """After Ctrl+C a line shows job, time, progress, the time left and what another Ctrl+C does; then that happens."""
    worker = on_terminal(options=["--worker-class", worker_class])
    at_number(connection, queue)
    worker.press(CTRL_C)
    worker.wait_seen(
        r"Waiting for tests\.support\.resumable_jobs\.slow_at \([0-9a-f-]{36}\): \d+ s, 39 of 200; "
        r"interrupted in 1\d s\. Ctrl\+C again: interrupt now"
    )
    let_pass(1.1, "two signals within a second are one")
    worker.press(CTRL_C)
    assert worker.wait(10) == os.EX_SOFTWARE, worker.raw
    # Nothing of the line is left, and the records of worker and work horse that came meanwhile are whole.
    lines = worker.screen
    assert not [line for line in lines if "Waiting for" in line]
    records = [line for line in lines if "still at number" in line]
    assert len(records) > 5
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d still at number 39, look \d+", record) for record in records), records


def test_a_table_of_the_hooks_at_the_end(on_terminal: OnTerminal) -> None:
    """The last lines on the terminal are the exit hooks, each with its outcome, time and error."""
    worker = on_terminal()
    worker.press(CTRL_C)
    assert worker.wait(10) == os.EX_SOFTWARE
    first, second = [line for line in worker.screen if line][-2:]
    assert re.fullmatch(rf"ok +[\d.]+ m?s +{re.escape(HOOKS[0])} +noted", first)
    assert re.match(rf"failed +[\d.]+ m?s +{re.escape(HOOKS[1])} +\w+Error", second)


def test_a_stopped_terminal_delays_nothing(
    connection: redis.Redis, queue: Queue, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    """After Ctrl+S the terminal takes nothing more: the shutdown goes on as without one."""
    with (tmp_path / "stdout").open("wb") as stdout:
        worker = on_terminal({"TEST_GRACEFUL_SETTINGS": "{}"}, stdout=stdout)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_seen("Waiting for")
    worker.press(STOP)
    let_pass(1.0, "it draws five frames a second, which now nobody takes")
    connection.rpush("go", 1)
    began = time.monotonic()
    assert worker.wait(10) == os.EX_OK
    assert time.monotonic() - began < 5
    assert job.get_status(refresh=True) == "finished"


def test_a_terminal_that_is_gone_ends_no_job(
    connection: redis.Redis, queue: Queue, on_terminal: OnTerminal, tmp_path: Path
) -> None:
    """Under ``nohup`` a terminal that goes away during a shutdown changes nothing: job, hooks and report are done."""
    worker = on_terminal(nohup=True)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_seen("Waiting for")
    worker.hang_up()
    let_pass(1.5, "SIGHUP and writes to a terminal that is gone")
    connection.rpush("go", 1)
    assert worker.wait(15) == os.EX_SOFTWARE
    assert job.get_status(refresh=True) == "finished"
    (report,) = Journal(connection).entries()
    assert [hook.outcome for hook in report.hooks] == ["ok", "failed"]


@pytest.mark.parametrize(
    ("environment", "live", "coloured"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, False, False)],
)
def test_what_the_terminal_and_its_owner_want(
    environment: dict[str, str],
    live: bool,
    coloured: bool,
    connection: redis.Redis,
    queue: Queue,
    on_terminal: OnTerminal,
) -> None:
    """``NO_COLOR`` takes the colours away, a dumb terminal the line and the table too."""
    worker = on_terminal(environment)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.press(CTRL_C)
    if live:
        worker.wait_seen("Waiting for")
    else:
        worker.wait_seen("shutdown requested")
    connection.rpush("go", 1)
    assert worker.wait(10) == os.EX_SOFTWARE
    assert ("\x1b[K" in worker.raw) == live
    # RQ's own log lines have colours of their own.
    _, head, rows = worker.raw.rpartition("exit hook")
    assert bool(head) == live
    assert bool(live and re.search(r"\x1b\[[\d;]+m", rows)) == coloured


def test_what_a_terminal_shows() -> None:
    """The tests' terminal: line breaks, carriage returns and the clearing of a line."""
    assert shown("one\r\ntwo\rT\r\n\x1b[1mlive line\x1b[0m\r\x1b[Klog\r\n") == ["one", "Two", "log", ""]
