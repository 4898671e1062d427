"""Stop signals that keep coming until the process is gone: the exit code is the report's, to the last instant.

``SEED`` repeats the random instants of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import JOURNAL_KEY
from tests.conftest import StartWorker
from tests.support import worker_jobs
from tests.support.forkserver import ForkServer
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import wait_until

SHUTDOWNS = int(os.environ.get("STORM_CODES", "12"))
WIDEST_GAP_SECONDS = 0.002
GALE_SECONDS = 0.5


@pytest.fixture
def shuffled() -> random.Random:
    """The source of all random choices; its seed is printed where a test fails."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed} STORM_CODES={SHUTDOWNS}")
    return random.Random(seed)


@pytest.fixture
def forkserver(valkey: Server, connection: redis.Redis, tmp_path: Path) -> Iterator[ForkServer]:
    """A place that starts workers quickly."""
    environment = {"TEST_REDIS_URL": valkey.url, "TEST_RUN_DIR": str(django_settings.RUN_DIR)}
    settings = {"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool"), "GRACEFUL_TIMEOUT": 15.0}
    with ForkServer(tmp_path / "workers.log", environment, settings) as forkserver:
        yield forkserver


def report_named(connection: redis.Redis, name: str) -> ShutdownReport:
    """The one report of the worker with this name; its database has no tables, so it stayed in the journal."""
    (report,) = [
        report for report in (report_json.load(text) for text in connection.hvals(JOURNAL_KEY)) if report.worker == name
    ]
    return report


def registered(connection: redis.Redis, name: str) -> Callable[[], bool]:
    return lambda: connection.hget(f"rq:worker:{name}", "state") in (b"idle", b"busy")


def gone(pid: int) -> bool:
    """Whether a child of the forkserver is over: it is a zombie then."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def storm(pid: int, shuffled: random.Random, over: Callable[[], bool], widest: float = WIDEST_GAP_SECONDS) -> int:
    """Send stop signals until the process is over; returns how many."""
    sent = 0
    until = time.monotonic() + 20
    while not over() and time.monotonic() < until:
        try:
            os.kill(pid, shuffled.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGINT)))
        except ProcessLookupError:
            break
        sent += 1
        time.sleep(shuffled.uniform(0, widest))
    return sent


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_signals_until_the_process_is_gone(
    worker_class: str,
    busy: bool,
    connection: redis.Redis,
    queue: Queue,
    forkserver: ForkServer,
    shuffled: random.Random,
) -> None:
    """The exit code is the report's, however late the last signal comes."""
    for number in range(SHUTDOWNS):
        if busy:
            queue.enqueue(worker_jobs.idles, 0.2)
        name = f"storm-{number}"
        pid = forkserver.start("runworker_graceful", queue.name, "--name", name, "--worker-class", worker_class)
        wait_until(registered(connection, name), 10, lambda: forkserver.output)
        storm(pid, shuffled, lambda pid=pid: gone(pid))  # type: ignore[misc]
        code, _ = forkserver.wait(pid)
        report = report_named(connection, name)
        assert (code, report.sealed) == (report.exit_code, True), f"shutdown {number}\n{forkserver.output[-5000:]}"
        assert (report.outcome, code) == ("clean", 0), f"shutdown {number}\n{forkserver.output[-5000:]}"


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_tens_of_thousands_of_signals(
    worker_class: str,
    busy: bool,
    connection: redis.Redis,
    queue: Queue,
    forkserver: ForkServer,
    shuffled: random.Random,
) -> None:
    """As many signals as the kernel delivers are one request to stop: the shutdown takes its course and is reported."""
    sent = []
    for number in range(SHUTDOWNS):
        if busy:
            queue.enqueue(worker_jobs.idles, shuffled.uniform(0.1, GALE_SECONDS))
        name = f"gale-{number}"
        pid = forkserver.start("runworker_graceful", queue.name, "--name", name, "--worker-class", worker_class)
        wait_until(registered(connection, name), 10, lambda: forkserver.output)
        until = time.monotonic() + GALE_SECONDS
        sent.append(0)
        while time.monotonic() < until and not gone(pid):
            for _ in range(200):
                os.kill(pid, signal.SIGTERM)
                sent[-1] += 1
        code, _ = forkserver.wait(pid)
        report = report_named(connection, name)
        assert (code, report.outcome, report.exit_code) == (0, "clean", 0), (
            f"shutdown {number}, {sent[-1]} signals\n{forkserver.output[-5000:]}"
        )
    print(f"signals per shutdown: {sorted(sent)}")


def test_signal_and_lost_redis_at_the_same_instant(
    connection: redis.Redis, queue: Queue, forkserver: ForkServer, shuffled: random.Random
) -> None:
    """However many threads find out that the worker has to end, the shutdown is requested and its error logged once."""
    for number in range(SHUTDOWNS):
        job = queue.enqueue(worker_jobs.idles, shuffled.uniform(0.05, 0.15))
        name = f"twice-{number}"
        options = ("--name", name, "--worker-class", "tests.support.worker_hooks.AskedTwice")
        code, _ = forkserver.wait(forkserver.start("runworker_graceful", queue.name, *options))
        report = report_named(connection, name)
        assert code == report.exit_code, forkserver.output[-5000:]
        assert forkserver.output.count(f"Worker {name} [PID") == 1, forkserver.output[-5000:]
        assert forkserver.output.count(f"Worker {name}: ended by an error") == 1, "one error, one traceback"
        assert job.get_status(refresh=True) == "finished"


def test_first_signal_when_the_report_is_sealed(connection: redis.Redis, start_worker: StartWorker) -> None:
    """The exit code of a burst that is over is the report's, also where the signal to stop comes only then."""
    settings = {"GRACEFUL_EXIT_HOOKS": ["tests.support.attack_hooks.is_stopped_at_exit"]}
    worker = start_worker(options=["--burst"], settings=settings, wait=False)
    code = worker.wait()
    report = report_of(connection, worker)
    assert (code, report.exit_code, report.reason) == (0, 0, "burst"), worker.output


def test_signals_until_the_process_is_gone_under_the_stock_command(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, shuffled: random.Random
) -> None:
    """Also where django-rq's own command ends the process, the way out of the interpreter included."""
    for number in range(max(1, SHUTDOWNS // 3)):
        worker = start_worker(
            command="rqworker", options=["--worker-class", "graceful.worker.GracefulWorker"], name=f"stock-{number}"
        )
        storm(worker.pid, shuffled, lambda worker=worker: not worker.running)  # type: ignore[misc]
        report = report_of(connection, worker)
        assert worker.exit_code == report.exit_code == 0, worker.output
