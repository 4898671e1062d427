"""A pool of eight workers beside eight workers that were started alone: memory, and how long a fork takes.

``python -m tests.benchmarks.pool``. Linux only: memory is the proportional set size (smaps_rollup, proc_pid_smaps(5)).
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import redis

from tests.benchmarks.measures import GRACEFUL, Bench
from tests.support.processes import WorkerProcess, pids_in_session
from tests.support.server import Server
from tests.support.waiting import wait_until

WORKERS = 8


def registered(connection: redis.Redis) -> int:
    return int(connection.scard("rq:workers"))  # type: ignore[arg-type]


def megabytes(*workers: WorkerProcess) -> float:
    """What the processes of these have together."""
    kilobytes = 0
    for worker in workers:
        for pid in pids_in_session(worker.pid):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


def main() -> int:
    with Server() as server, tempfile.TemporaryDirectory() as directory:
        on = Bench(Path(directory), server)
        with contextlib.ExitStack() as stack:
            alone = [stack.enter_context(on.worker(GRACEFUL)) for _ in range(WORKERS)]
            wait_until(lambda: registered(on.connection) == WORKERS, 60)
            time.sleep(2)
            separate = megabytes(*alone)
        on.connection.flushall()
        with on.worker(GRACEFUL, ("default",), "--workers", str(WORKERS), wait=False) as pool:
            began = time.monotonic()
            wait_until(lambda: registered(on.connection) >= 1, 60, interval=0.001)
            first = time.monotonic() - began
            wait_until(lambda: registered(on.connection) == WORKERS, 60, interval=0.001)
            rest = time.monotonic() - began - first
            time.sleep(2)
            together = megabytes(pool)
            pool.signal()
            pool.wait()
    ratio = together / separate
    print(f"memory of {WORKERS} workers: alone {separate:.0f} MB, pool {together:.0f} MB, ratio {ratio:.2f}")
    print(f"the first worker after {first * 1e3:.0f} ms, each further one after {rest / (WORKERS - 1) * 1e3:.0f} ms")
    return int(ratio > 0.5)


if __name__ == "__main__":
    sys.exit(main())
