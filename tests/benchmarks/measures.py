"""What is measured, each on a fresh server and with real worker processes."""

from __future__ import annotations

import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from rq import Queue

from tests.benchmarks.jobs import ENDS, STARTS, stamped
from tests.settings import INSTALLED_APPS
from tests.support.job_accounting import balance
from tests.support.jobs import STARTED, quick
from tests.support.processes import ROOT, WorkerProcess
from tests.support.server import Server
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Kind:
    """A kind of worker.

    Args:
        title: the head of its column.
        command: the management command.
        settings: Django settings that it has otherwise.
        root: the checkout whose code runs.
    """

    title: str
    command: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    root: Path = ROOT


# A site without this package, not even its imports.
STOCK = Kind(
    "stock `rqworker`",
    "rqworker",
    {"INSTALLED_APPS": [app for app in INSTALLED_APPS if app != "graceful"]},
)
HOOK = {"GRACEFUL_EXIT_HOOKS": ["tests.benchmarks.jobs.hook"]}
GRACEFUL = Kind("`runworker_graceful`", "runworker_graceful", HOOK)


def earlier(root: Path) -> Kind:
    """The graceful worker of another checkout."""
    return Kind("the version before", GRACEFUL.command, HOOK, root)


BUSY_SECONDS = 0.4
PATIENCE_SECONDS = 30.0


class NotEnded(AssertionError):
    """A worker that was asked to end goes on."""


@dataclass
class Ended:
    """How a worker process ended: when, and its CPU time, that of its horses included."""

    at: float
    exit_code: int
    cpu_seconds: float


@dataclass
class Losses:
    """What became of the jobs of many stopped workers."""

    jobs: int = 0
    gone: int = 0
    stuck: int = 0
    twice: int = 0
    not_ended: int = 0
    """Workers that SIGTERM did not end."""

    @property
    def lost(self) -> int:
        return self.gone + self.stuck


@dataclass
class Backlog:
    """What one worker did with its backlogs; the CPU time has the worker's start and its horses in it."""

    rates: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    cpu_seconds_a_job: float = 0.0


class Bench:
    """Starts workers of either kind on one server, with a database of its own.

    Args:
        directory: where logs and databases go.
    """

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.server = server
        self.connection = redis.Redis.from_url(server.url)
        self.environment = {
            "DATABASE_URL": f"sqlite:///{directory / 'bench.sqlite3'}",
            "TEST_REDIS_URL": server.url,
            "TEST_RUN_DIR": str(directory),
        }
        # As of an installed package: nothing is compiled at the start of a worker.
        self.environment["PYTHONDONTWRITEBYTECODE"] = ""
        environ = {**os.environ, **self.environment, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, check=True, env=environ, cwd=ROOT)

    def queue(self, name: str = "default") -> Queue:
        return Queue(name, connection=self.connection)

    @contextmanager
    def worker(
        self, kind: Kind, queues: Sequence[str] = ("default",), *options: str, wait: bool = True
    ) -> Iterator[WorkerProcess]:
        """A worker in its queues, which is killed with the block if it has not ended."""
        worker = WorkerProcess(
            self.connection,
            queues,
            options,
            command=kind.command,
            output=self.directory / "worker.log",
            environment=self.environment,
            settings=kind.settings,
            root=kind.root,
        )
        try:
            if wait:
                worker.wait_started(30)
            yield worker
        finally:
            worker.clear()

    def stop(self, worker: WorkerProcess) -> Ended:
        """SIGTERM it and see it end."""
        worker.signal()
        return self.end(worker)

    def reports(self) -> int:
        """How many shutdown reports are in the database."""
        with closing(sqlite3.connect(self.directory / "bench.sqlite3")) as database:
            return int(database.execute("SELECT count(*) FROM graceful_shutdownreport").fetchone()[0])

    def end(self, worker: WorkerProcess) -> Ended:
        """Block in ``wait4`` until it ends: ``Popen.wait`` with a timeout looks only every 50 ms."""
        killer = threading.Timer(PATIENCE_SECONDS, worker.process.kill)
        killer.start()
        _, status, usage = os.wait4(worker.pid, 0)
        at = time.monotonic()
        killer.cancel()
        worker.process.returncode = os.waitstatus_to_exitcode(status)
        if at and worker.process.returncode == -9:
            raise NotEnded(f"{worker!r} did not end within {PATIENCE_SECONDS} s:\n{worker.output}")
        return Ended(at, worker.process.returncode, usage.ru_utime + usage.ru_stime)

    def fill(self, queues: Sequence[str], jobs: int) -> None:
        """Enqueue so many jobs at once, spread over the queues."""
        self.connection.delete(ENDS)
        with self.connection.pipeline() as pipeline:
            for place, name in enumerate(queues):
                share = range(place, jobs, len(queues))
                self.queue(name).enqueue_many([Queue.prepare_data(stamped) for _ in share], pipeline=pipeline)
            pipeline.execute()

    def rate(self, queues: Sequence[str], jobs: int) -> float:
        """Jobs a second, from the first to the last of a backlog that appears at once."""
        self.fill(queues, jobs)
        wait_until(lambda: self.connection.llen(ENDS) == jobs, 120, "the backlog is done", interval=0.05)
        stamps = sorted(float(stamp) for stamp in self.connection.lrange(ENDS, 0, -1))
        return (jobs - 1) / (stamps[-1] - stamps[0])


@contextmanager
def bench() -> Iterator[Bench]:
    """A bench with a server of its own."""
    with tempfile.TemporaryDirectory(prefix="graceful-bench-") as directory, Server() as server:
        yield Bench(Path(directory), server)


def losses(kind: Kind, queues: Sequence[str], signals: int, rng: random.Random) -> Losses:
    """SIGTERM at random instants over a backlog, each time of a fresh worker, and look every job up.

    Args:
        signals: how many workers are stopped.
        rng: chooses the instants.
    """
    found = Losses()
    with bench() as on:
        for _ in range(signals):
            on.connection.flushall()
            ids = [on.queue(queues[turn % len(queues)]).enqueue(quick).id for turn in range(60)]
            with on.worker(kind, queues) as worker:
                wait_until(lambda: on.connection.hlen(STARTED), 20, lambda output=worker: f"a job: {output.output}")
                time.sleep(rng.uniform(0, 0.25))
                try:
                    on.stop(worker)
                except NotEnded:
                    found.not_ended += 1
            books = balance(on.connection, ids, queues)
            found.jobs += len(ids)
            found.gone += len(books.lost)
            found.stuck += len(books.stuck)
            found.twice += len(books.run_twice)
    return found


def idle_stops(on: Bench, kinds: Sequence[Kind], stops: int, rng: random.Random) -> Iterator[tuple[Kind, float]]:
    """Seconds from SIGTERM to the end of an idle worker; the two kinds take turns."""
    for _ in range(stops):
        for kind in kinds:
            on.connection.flushall()
            with on.worker(kind) as worker:
                # It is in its queue's blocking call by now, or about to enter it: both happen.
                time.sleep(rng.uniform(0.05, 0.5))
                asked = time.monotonic()
                yield kind, on.stop(worker).at - asked


def busy_stops(on: Bench, kinds: Sequence[Kind], stops: int, rng: random.Random) -> Iterator[tuple[Kind, float]]:
    """Seconds from the end of the running job to the end of the worker, SIGTERM being sent during the job."""
    for _ in range(stops):
        for kind in kinds:
            on.connection.flushall()
            on.queue().enqueue(stamped, BUSY_SECONDS)
            with on.worker(kind) as worker:
                wait_until(lambda: on.connection.llen(STARTS), 20)
                time.sleep(rng.uniform(0, BUSY_SECONDS / 2))
                ended = on.stop(worker)
                yield kind, ended.at - float(on.connection.lindex(ENDS, 0))


def starts(on: Bench, kinds: Sequence[Kind], queues: Sequence[str], jobs: int, times: int) -> dict[Kind, list[float]]:
    """Seconds from the start of a process to the last of the jobs that wait for it; the kinds take turns.

    Args:
        queues: what the jobs are spread over.
        jobs: how many there are.
        times: how often for each kind; a first one, which may have to compile what it imports, is not counted.
    """
    seconds: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    for turn in range(times + 1):
        for kind in kinds:
            on.connection.flushall()
            on.fill(queues, jobs)
            began = time.monotonic()
            with on.worker(kind, queues, "--burst", wait=False) as worker:
                ended = on.end(worker)
                assert on.connection.llen(ENDS) == jobs, (ended, worker.output)
            if turn:
                seconds[kind].append(max(map(float, on.connection.lrange(ENDS, 0, -1))) - began)
    return seconds


def backlogs(kinds: Sequence[Kind], queues: Sequence[str], jobs: int, pairs: int) -> dict[Kind, Backlog]:
    """All kinds of worker stand idle side by side, and are given the same backlog in turn.

    Args:
        queues: what the jobs are spread over.
        jobs: how many a backlog has; it appears at once.
        pairs: how often each gets one; a first one is not counted.
    """
    runs = {kind: Backlog() for kind in kinds}
    with ExitStack() as stack:
        benches = {kind: stack.enter_context(bench()) for kind in kinds}
        workers = {kind: stack.enter_context(benches[kind].worker(kind, queues)) for kind in kinds}
        for turn in range(pairs + 1):
            # The one that goes first takes turns too: what the machine does besides hits all alike.
            for kind in kinds if turn % 2 else kinds[::-1]:
                rate = benches[kind].rate(queues, jobs)
                if turn:
                    runs[kind].rates.append(rate)
        for kind, run in runs.items():
            run.peak_bytes = peak_bytes(workers[kind])
            ended = benches[kind].stop(workers[kind])
            run.cpu_seconds_a_job = ended.cpu_seconds / (jobs * (pairs + 1))
    return runs


def peak_bytes(worker: WorkerProcess) -> int:
    """The most memory that a worker has had (Linux); ``ru_maxrss`` would begin with what this process has itself."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile by interpolation; the largest value where there are few."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
