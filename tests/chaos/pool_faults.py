"""A pool of workers, started as a user starts it, and what strikes it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGTERM

from tests.chaos.faults import SETTINGS
from tests.chaos.lane import Lane
from tests.chaos.ledger import VARIABLE
from tests.support.processes import DjangoProcess
from tests.support.waiting import let_pass


class PoolProcess(DjangoProcess):
    """A pool on a lane.

    Args:
        lane: the lane.
        workers: how many.
        options: further command line options.
    """

    def __init__(self, lane: Lane, workers: int, options: Sequence[str]) -> None:
        super().__init__(
            ["runworker_graceful", "default", "--workers", str(workers), *options],
            output=lane.directory / "pool.log",
            environment={
                "DATABASE_URL": lane.database_url,
                "TEST_RUN_DIR": str(lane.directory),
                "TEST_REDIS_URL": lane.server.url,
                VARIABLE: str(lane.ledger.path),
            },
            settings={**lane.settings, **SETTINGS},
        )
        self.stopped_at: float | None = None
        self.killed = False

    def signal(self, signum: int = SIGTERM) -> None:
        self._note(signum)
        super().signal(signum)

    def signal_group(self, signum: int = SIGTERM) -> None:
        self._note(signum)
        super().signal_group(signum)

    def workers(self) -> list[int]:
        """Processes whose parent is the pool's: its workers, and now and then the one that looks at new code."""
        return children_of(self.pid)

    def _note(self, signum: int) -> None:
        if not self.running:
            return
        if signum == signal.SIGKILL:
            self.killed = True
        elif signum in (signal.SIGTERM, signal.SIGINT) and self.stopped_at is None:
            self.stopped_at = time.monotonic()


def children_of(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


Fault = Callable[[PoolProcess, random.Random], None]


def term(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)


def term_group(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal_group()


def double_term(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    let_pass(rng.uniform(0, 0.6), "the first signal is ahead")
    pool.signal(rng.choice((signal.SIGTERM, signal.SIGINT)))


def kill_worker(pool: PoolProcess, rng: random.Random) -> None:
    workers = pool.workers()
    for pid in rng.sample(workers, rng.randint(1, len(workers))) if workers else []:
        kill(pid)
    let_pass(rng.uniform(0, 1.2), "the parent has seen it, or has not")


def kill_horse(pool: PoolProcess, rng: random.Random) -> None:
    horses = [pid for worker in pool.workers() for pid in children_of(worker)]
    for pid in rng.sample(horses, min(len(horses), 1)):
        kill(pid)


def kill_parent(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGKILL)


def kill_stopping_parent(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    let_pass(rng.uniform(0, 0.8), "its workers are at some stage of their end")
    pool.signal(signal.SIGKILL)


def kill_stopping_worker(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    kill_worker(pool, rng)


def reload(pool: PoolProcess, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 2)):
        pool.signal(signal.SIGHUP)
        let_pass(rng.uniform(0, 2.5), "the new code is looked at, or workers are being replaced")


def reload_and_kill(pool: PoolProcess, rng: random.Random) -> None:
    reload(pool, rng)
    kill_worker(pool, rng)


def resize(pool: PoolProcess, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        pool.signal(rng.choice((signal.SIGTTIN, signal.SIGTTOU)))
        let_pass(rng.uniform(0, 0.3), "a worker may have been started")


def everything(pool: PoolProcess, rng: random.Random) -> None:
    """Signals of all kinds, before a stop and during it."""
    kinds = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT)
    for stopping in (False, True):
        if stopping:
            pool.signal(signal.SIGTERM)
        for _ in range(rng.randint(1, 5)):
            pool.signal(rng.choice(kinds))
            let_pass(rng.uniform(0, 0.2), "the parent has acted on it, or has not")


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        term,
        term_group,
        double_term,
        kill_worker,
        kill_horse,
        kill_parent,
        kill_stopping_parent,
        kill_stopping_worker,
        reload,
        reload_and_kill,
        resize,
        everything,
    )
}
