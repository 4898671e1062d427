"""Signals at random instants over a backlog: no job is lost, and none runs twice.

``STORM`` sets the number of shutdowns of each test, ``SEED`` the random instants of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue

from graceful.core import report_json
from graceful.reports.journal import JOURNAL_KEY
from tests.support import storm_jobs
from tests.support.forkserver import ForkServer
from tests.support.job_accounting import balance
from tests.support.processes import pids_in_session
from tests.support.server import Server
from tests.support.waiting import wait_until

SHUTDOWNS = int(os.environ.get("STORM", "25"))
BACKLOG = 40
LONGEST_SECONDS = 0.01
WIDEST_SECONDS = 0.4
"""The signal comes within so many seconds of the worker's birth."""

Starts = Any


@pytest.fixture
def seed() -> int:
    """Of all random choices; printed where a test fails."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed} STORM={SHUTDOWNS}")
    return seed


@pytest.fixture
def forkserver(valkey: Server, connection: redis.Redis, tmp_path: Path) -> Iterator[ForkServer]:
    """A place that starts workers quickly, with the settings of a real worker."""
    environment = {"TEST_REDIS_URL": valkey.url, "TEST_RUN_DIR": str(django_settings.RUN_DIR)}
    with ForkServer(
        tmp_path / "workers.log", environment, {"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")}
    ) as forkserver:
        yield forkserver


class Storm:
    """One worker after the other over a backlog, each of them stopped at a random instant."""

    def __init__(
        self, connection: redis.Redis, forkserver: ForkServer, seed: int, queue_names: tuple[str, ...]
    ) -> None:
        self.connection = connection
        self.forkserver = forkserver
        self.random = random.Random(seed)
        self.queues = [Queue(name, connection=connection) for name in queue_names]
        self.names = queue_names
        self.job_ids: list[str] = []

    def top_up(self) -> None:
        """Have a backlog; at times none, so that the worker is idle when the signal comes."""
        wanted = self.random.choice((BACKLOG, BACKLOG, 3, 0))
        for _ in range(wanted - sum(queue.count for queue in self.queues)):
            queue = self.random.choice(self.queues)
            self.job_ids.append(queue.enqueue(storm_jobs.short, LONGEST_SECONDS).id)

    def aim(self, signum: signal.Signals, target: str, session: int) -> None:
        """Send the signal to the worker, to its whole session, or first to the horses and then to the worker."""
        pids = [session] if target == "worker" else pids_in_session(session)
        horses = [pid for pid in pids if pid != session]
        # The worker last: a horse hit after its worker's end is none of ours.
        order = [*horses, session] if target == "horse" else [session, *horses]
        for pid in order:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    def check(self, name: str, code: int, signum: signal.Signals) -> None:
        """The exit code is the report's; a worker without a report was ended by the signal.

        Before the command has its handlers a signal just ends the process. It holds nothing then, and has no report.
        """
        reports = [report_json.load(text) for text in self.connection.hvals(JOURNAL_KEY)]
        codes = [report.exit_code for report in reports if report.worker == name]
        # A stop in the command's own start, before the worker is made, ends it without a report too.
        assert code == codes[0] == 0 if codes else code in (0, -signum), (
            f"{name}: exit code {code}, reports {codes}\n{self.forkserver.output[-5000:]}"
        )

    def rage(self, signum: signal.Signals, target: str, options: tuple[str, ...]) -> None:
        for number in range(SHUTDOWNS):
            self.top_up()
            pid = self.forkserver.start("runworker_graceful", *self.names, "--name", f"storm-{number}", *options)
            time.sleep(self.random.uniform(0, WIDEST_SECONDS))
            if pids_in_session(pid):
                self.aim(signum, target, pid)
            self.check(f"storm-{number}", self.forkserver.wait(pid)[0], signum)
            wait_until(lambda pid=pid: not pids_in_session(pid), 3, "nothing is left behind")  # type: ignore[misc]
            assert not self.connection.smembers("rq:workers"), "the worker has not said that it is gone"

    def settle(self) -> None:
        """Do what is left, and balance the books."""
        books = balance(self.connection, self.job_ids, self.names)
        books.assert_balanced()
        pid = self.forkserver.start("runworker_graceful", *self.names, "--burst")
        assert self.forkserver.wait(pid, 60)[0] == 0
        books = balance(self.connection, self.job_ids, self.names)
        books.assert_balanced()
        assert len(books.at("finished")) == len(self.job_ids), books.summary()
        # A job in flight has time enough here: none has to be started again.
        assert set(books.started.values()) == {1}, books.run_twice


ONE, THREE = ("default",), ("default", "high", "low")


@pytest.mark.parametrize(
    ("signum", "target", "queue_names", "options"),
    [
        pytest.param(signal.SIGTERM, "worker", ONE, (), id="SIGTERM-one-queue"),
        pytest.param(signal.SIGTERM, "worker", THREE, (), id="SIGTERM-three-queues"),
        pytest.param(signal.SIGINT, "worker", THREE, (), id="SIGINT"),
        pytest.param(signal.SIGTERM, "session", THREE, (), id="SIGTERM-to-all-processes"),
        pytest.param(signal.SIGINT, "session", ONE, (), id="SIGINT-to-all-processes"),
        pytest.param(signal.SIGTERM, "horse", THREE, (), id="SIGTERM-to-the-horse-first"),
        pytest.param(signal.SIGTERM, "worker", ONE, ("--burst",), id="burst-one-queue"),
        pytest.param(signal.SIGTERM, "worker", THREE, ("--burst",), id="burst-three-queues"),
        pytest.param(signal.SIGTERM, "worker", THREE, ("--worker-class", "rq.SimpleWorker"), id="simple"),
    ],
)
def test_no_job_is_lost_or_run_twice(
    signum: signal.Signals,
    target: str,
    queue_names: tuple[str, ...],
    options: tuple[str, ...],
    connection: redis.Redis,
    forkserver: ForkServer,
    seed: int,
) -> None:
    """Signals at random instants lose no job, leave none stuck, and run none twice at once."""
    storm = Storm(connection, forkserver, seed, queue_names)
    storm.rage(signum, target, options)
    storm.settle()


def test_no_job_is_lost_or_run_twice_by_workers_side_by_side(
    connection: redis.Redis, forkserver: ForkServer, seed: int
) -> None:
    """The same holds for workers that share a queue."""
    storm = Storm(connection, forkserver, seed, THREE)
    for number in range(max(1, SHUTDOWNS // 4)):
        storm.top_up()
        pids = [forkserver.start("runworker_graceful", *THREE, "--name", f"side-{number}-{each}") for each in range(4)]
        for pid in pids:
            time.sleep(storm.random.uniform(0, WIDEST_SECONDS / 4))
            storm.aim(signal.SIGTERM, "worker", pid)
        for each, pid in enumerate(pids):
            storm.check(f"side-{number}-{each}", forkserver.wait(pid)[0], signal.SIGTERM)
    wait_until(lambda: not connection.smembers("rq:workers"), 5, "no worker is registered")
    storm.settle()
