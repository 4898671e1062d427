"""A fleet of real worker processes on one Redis and one PostgreSQL that all get SIGTERM in the same second.

``python -m tests.benchmarks.fleet --workers 10 100 500``: how long they take to end, how many database connections
they open at most, what becomes of their reports, and what the idle fleet costs Redis beside stock workers. The
processes are forked from one that has loaded Django; they share its memory and nothing else. Linux only, since it
waits with pidfd_open(2).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import select
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.benchmarks.measures import HOOK
from tests.chaos.services import Postgres
from tests.support.forkserver import ForkServer
from tests.support.processes import DjangoProcess
from tests.support.server import Server
from tests.support.waiting import wait_until

IDLE_SECONDS = 30.0
LOGGING = "-c log_connections=on -c log_disconnections=on -c log_line_prefix='%n %p '"
JOURNAL = "graceful:journal"
ROWS = "SELECT count(*) FROM graceful_shutdownreport"


def most_connections(log: Path, since: float) -> int:
    """How many connections there were at one time since an instant, by PostgreSQL's own log."""
    changes = []
    for line in log.read_text().splitlines():
        at, _pid, text = ([*line.split(" ", 2), "", ""])[:3]
        change = ("connection authorized" in text) - ("disconnection" in text)
        if change and float(at) >= since:
            changes.append((float(at), -change))  # Of the same millisecond, those that connect count first.
    return max(itertools.accumulate((-change for _at, change in sorted(changes)), initial=0))


@contextlib.contextmanager
def fleet(
    command: str, number: int, server: Server, database: str, directory: Path, settings: dict[str, Any]
) -> Iterator[list[int]]:
    """So many idle workers; their pids."""
    client = server.client()
    environment = {"DATABASE_URL": database, "TEST_REDIS_URL": server.url, "TEST_RUN_DIR": str(directory)}
    with ForkServer(directory / "output", environment, settings) as forks:
        pids = [forks.start(command, "default", "--name", f"w{each}") for each in range(number)]

        def idle() -> int:
            with client.pipeline(transaction=False) as pipeline:
                for each in range(number):
                    pipeline.hget(f"rq:worker:w{each}", "state")
                return pipeline.execute().count(b"idle")

        wait_until(lambda: idle() == number, 300, lambda: f"{idle()} of {number} workers; {forks.output[-3000:]}")
        yield pids


def commands_a_second(client: redis.Redis, seconds: float) -> float:
    """How many commands Redis is sent by the fleet that waits."""

    def sent() -> int:
        return int(client.info("stats")["total_commands_processed"])  # type: ignore[index]

    time.sleep(3)
    before = sent()
    time.sleep(seconds)
    return (sent() - before - 1) / seconds


def stop(pids: list[int], seconds: float) -> list[float]:
    """SIGTERM to all; how long each took to end, in seconds.

    Raises:
        AssertionError: one did not end.
    """
    waiting = {os.pidfd_open(pid): pid for pid in pids}
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    sent = {}
    for pid in random.sample(pids, len(pids)):
        sent[pid] = time.monotonic()
        os.kill(pid, signal.SIGTERM)
    until, took = time.monotonic() + seconds, []
    while waiting:
        ended = poll.poll(max(1.0, (until - time.monotonic()) * 1000))
        now = time.monotonic()
        assert ended, f"{len(waiting)} workers did not end"
        for descriptor, _event in ended:
            poll.unregister(descriptor)
            os.close(descriptor)
            took.append(now - sent[waiting.pop(descriptor)])
    return took


def measure(number: int, limit: int | None, directory: Path, idle_seconds: float) -> tuple[str, ...]:
    """One row of the table."""
    with Server() as server:
        postgres = Postgres(directory / f"postgres-{number}", LOGGING)
        postgres.create()
        try:
            environment = {"DATABASE_URL": postgres.url, "TEST_REDIS_URL": server.url, "TEST_RUN_DIR": str(directory)}

            def manage(*arguments: str) -> None:
                process = DjangoProcess(arguments, environment=environment, output=directory / "manage")
                assert process.wait(120) == 0, process.output
                process.close()

            manage("migrate", "--verbosity", "0")
            client = server.client()
            stock = 0.0
            if idle_seconds:
                with fleet("rqworker", number, server, postgres.url, directory, {}):
                    stock = commands_a_second(client, idle_seconds)
                client.flushall()
            settings = {**HOOK, "GRACEFUL_REPORT_CONNECTIONS": limit, "GRACEFUL_RELEASE": "v1"}
            with fleet("runworker_graceful", number, server, postgres.url, directory, settings) as pids:
                ours = commands_a_second(client, idle_seconds) if idle_seconds else 0.0
                began = time.time()
                took = stop(pids, 60)
                most = most_connections(postgres.directory / "log", began)
            with postgres.connect() as connection:
                stored = connection.execute(ROWS).fetchone()[0]
                left = client.hlen(JOURNAL)
                manage("archive_reports")
                known = connection.execute(ROWS).fetchone()[0]
        finally:
            postgres.stop("immediate")
    return (
        str(number),
        f"{statistics.median(took) * 1e3:.0f} ms",
        f"{statistics.quantiles(took, n=20)[-1] * 1e3:.0f} ms",
        f"{max(took) * 1e3:.0f} ms",
        str(most),
        str(stored),
        str(left),
        str(number - known),
        f"{ours:.0f}",
        f"{stock:.0f}",
    )


COLUMNS = (
    "workers",
    "stop p50",
    "p95",
    "worst",
    "connections at most",
    "stored themselves",
    "left in the journal",
    "lost",
    "commands/s, idle",
    "stock",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--limit", type=int, default=20, help="GRACEFUL_REPORT_CONNECTIONS (default 20); 0: none")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds of idleness that are counted")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    lost = 0
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        for number in options.workers:
            row = measure(number, options.limit or None, Path(directory), options.idle)
            lost += int(row[COLUMNS.index("lost")])
            print(f"| {' | '.join(row)} |", flush=True)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
