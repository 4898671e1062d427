"""The signals of real workers: sent once, in order, from the worker's main thread, and harmless."""

from __future__ import annotations

import json
import time
from pathlib import Path
from signal import SIGTSTP
from typing import Any

import pytest
import redis
from rq import Queue
from rq.command import send_command

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.waiting import wait_until
from tests.support.worker_hooks import notes

SETTINGS = {
    "GRACEFUL_TIMEOUT": 3.0,
    "GRACEFUL_HOOKS_TIMEOUT": 2.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.5,
    "GRACEFUL_RELEASE": "r1",
    "GRACEFUL_EXIT_HOOKS": ["graceful.hooks.builtin.close_caches"],
}
NAMES = (
    "worker_started",
    "shutdown_requested",
    "job_interrupted",
    "worker_drained",
    "hook_finished",
    "shutdown_finished",
)
LATE = 0.5
"""Seconds that a loaded machine may take to see the end of a process."""


@pytest.fixture
def listening(start_worker: StartWorker, tmp_path: Path) -> Any:
    """Start a worker with receivers; keywords are its environment."""

    def start(wait: bool = True, **environment: str) -> WorkerProcess:
        return start_worker(
            options=["--worker-class", "tests.support.signal_receivers.Listening"],
            settings=SETTINGS,
            environment={"TEST_NOTES": str(tmp_path / "notes"), **environment},
            wait=wait,
        )

    return start


def told(tmp_path: Path) -> list[dict[str, Any]]:
    """What the receivers were told, in order."""
    return [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]


def test_each_signal_is_sent_once_in_order(
    connection: redis.Redis, queues: dict[str, Queue], listening: Any, tmp_path: Path
) -> None:
    """A worker that interrupts its job sends them all, each once, in its own process and main thread."""
    worker = listening()
    job = queues["default"].enqueue(jobs.until_released, "never")
    wait_until(lambda: connection.hget(jobs.RUNNING, job.id) == b"1")
    worker.signal()
    assert worker.wait() == 75
    found = told(tmp_path)
    assert [note["kind"] for note in found] == list(NAMES)
    assert {(note["pid"], note["main"]) for note in found} == {(worker.pid, True)}
    by_kind = {note["kind"]: note for note in found}
    started, requested = by_kind["worker_started"], by_kind["shutdown_requested"]
    assert (started["worker"], started["queues"], started["release"]) == (worker.name, ["default"], "r1")
    assert (requested["worker"], requested["reason"], requested["signal_name"]) == (worker.name, "signal", "SIGTERM")
    assert by_kind["job_interrupted"]["job"] == [job.id, "interrupted"]
    assert by_kind["worker_drained"]["jobs"] == ["interrupted"]
    assert 0.4 < by_kind["worker_drained"]["seconds"] < 3
    assert by_kind["hook_finished"]["result"] == "graceful.hooks.builtin.close_caches"
    assert by_kind["shutdown_finished"]["report"] == [worker.name, "interrupted", 75]


@pytest.mark.parametrize("kind", ["TEST_FAILS", "TEST_EXITS"])
@pytest.mark.parametrize("name", NAMES)
def test_receivers_that_raise(
    name: str, kind: str, connection: redis.Redis, queues: dict[str, Queue], listening: Any, tmp_path: Path
) -> None:
    """A receiver that raises, or calls ``sys.exit()``, changes nothing but the log."""
    worker = listening(**{kind: name})
    job = queues["default"].enqueue(jobs.until_released, "never")
    wait_until(lambda: connection.hget(jobs.RUNNING, job.id) == b"1")
    worker.signal()
    assert worker.wait() == 75
    assert [note["kind"] for note in told(tmp_path)] == list(NAMES)
    assert "A receiver of a signal" in worker.output
    assert job.get_status(refresh=True) == "queued"
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code, report.notes) == ("interrupted", 75, "")


@pytest.mark.parametrize("name", ["worker_started", "shutdown_requested", "job_interrupted", "worker_drained"])
def test_receivers_that_hang(
    name: str, connection: redis.Redis, queues: dict[str, Queue], listening: Any, tmp_path: Path
) -> None:
    """A receiver that hangs is left behind: the end is forced within the grace period, and the report names it."""
    worker = listening(wait=name != "worker_started", TEST_HANGS=name)
    job = queues["default"].enqueue(jobs.until_released, "never")
    if name != "worker_started":
        wait_until(lambda: connection.hget(jobs.RUNNING, job.id) == b"1")
    else:
        wait_until(lambda: notes(tmp_path / "notes", name))
    began = time.monotonic()
    worker.signal()
    assert worker.wait() == 70
    assert time.monotonic() - began < SETTINGS["GRACEFUL_TIMEOUT"] + LATE  # type: ignore[operator]
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code) == ("forced", 70)
    assert "signal_receivers.py" in report.notes
    worker.clear()


def test_quiet_changed(connection: redis.Redis, listening: Any, tmp_path: Path) -> None:
    """A worker that becomes quiet, and takes jobs again, says so once each."""
    worker = listening()
    worker.signal(SIGTSTP)
    wait_until(lambda: [note["quiet"] for note in told(tmp_path)[1:]] == [True], 10)
    send_command(connection, worker.name, "resume")
    wait_until(lambda: [note["quiet"] for note in told(tmp_path)[1:]] == [True, False], 10)
    assert {(note["kind"], note["worker"], note["main"]) for note in told(tmp_path)[1:]} == {
        ("quiet_changed", worker.name, True)
    }
    worker.signal()
    assert worker.wait() == 0


def test_a_quiet_worker_is_told_in_its_journal(connection: redis.Redis, start_worker: StartWorker) -> None:
    """The journal says that a worker is quiet, until it stops."""
    worker = start_worker()
    assert not report_of(connection, worker).quiet
    worker.signal(SIGTSTP)
    wait_until(lambda: report_of(connection, worker).quiet)
    worker.signal()
    assert worker.wait() == 0
    assert not report_of(connection, worker).quiet
