"""What every peer runs: one job, one exit hook. Standard library only: it is imported in the peers' environments.

Environment:
    COMPARE_LEDGER: the file that starts and ends are appended to.
    COMPARE_WORKER: the number of the worker that this process belongs to.
"""

from __future__ import annotations

import os
import time


def run(job: str, seconds: float, endless: bool) -> None:
    """Note the start, take the time, note the end.

    Args:
        job: its name in the ledger.
        seconds: how long it takes.
        endless: the first run does not end by itself.
    """
    note("start", job)
    while endless and _first_run(job):
        time.sleep(0.05)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
    note("end", job)


def hook() -> None:
    """The exit hook, by whatever means a peer has for one."""
    if os.environ.get("COMPARE_WORKER"):
        note("hook", "-")


def note(what: str, job: str) -> None:
    """One line, in one write(2), which O_APPEND makes atomic on a local file system."""
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    line = f"{what} {job} {os.environ.get('COMPARE_WORKER', '-')} {os.getpid()} {now:.6f}\n"
    descriptor = os.open(os.environ["COMPARE_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _first_run(job: str) -> bool:
    """Whether no other run of the job has been noted before this one."""
    with open(os.environ["COMPARE_LEDGER"]) as ledger:
        return sum(line.startswith(f"start {job} ") for line in ledger) == 1
