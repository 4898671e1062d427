"""Jobs and exit hooks of the chaos suite. No job fails by itself."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time

import django
from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, connections

if not apps.ready:  # In the horse of RQ's own SpawnWorker, an interpreter that has not loaded Django.
    django.setup()

from graceful.jobs import resumable
from graceful.models import ShutdownReport
from tests.chaos.ledger import Ledger
from tests.support.jobs import current_job


def _start() -> tuple[Ledger, str]:
    """Note the start; the database is read where the lane has one for that, whether it answers or not."""
    ledger, job = Ledger.of_process(), str(current_job().id)
    ledger.note("start", job)
    if getattr(settings, "CHAOS_JOBS_READ_DATABASE", False):
        try:
            ShutdownReport.objects.exists()
        except DatabaseError:
            pass
        except BaseException:
            ledger.note("stop", job)
            raise
    return ledger, job


def napping(seconds: float) -> None:
    """Sleeps in many short calls."""
    ledger, job = _start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.005)
    except BaseException:
        ledger.note("stop", job)
        raise
    ledger.note("end", job)


def spinning(seconds: float) -> None:
    """Computes, without ever leaving Python."""
    ledger, job = _start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    except BaseException:
        ledger.note("stop", job)
        raise
    ledger.note("end", job)


def stubborn(seconds: float) -> None:
    """Swallows whatever is raised in it: only SIGKILL ends it before its time."""
    ledger, job = _start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:
            continue
    ledger.note("end", job)


def in_turns(seconds: float) -> None:
    """Sleeps, and lets other jobs have their turn after each quarter of the time; starts over if it is cut off."""
    ledger, job = _start()
    try:
        for _ in resumable(range(8), max_runtime=max(0.01, seconds / 4)):
            time.sleep(seconds / 8)
    except BaseException:
        ledger.note("stop", job)
        raise
    ledger.note("end", job)


JOBS = {"napping": napping, "spinning": spinning, "stubborn": stubborn, "in_turns": in_turns}


def hook_good() -> str:
    return "flushed nothing"


def hook_raises() -> None:
    raise RuntimeError("on purpose")


def hook_exits() -> None:
    sys.exit(3)


def hook_hangs() -> None:
    time.sleep(60)


def hook_spins() -> None:
    while True:
        pass


def hook_swallows() -> None:
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def hook_holds_the_gil() -> None:
    ctypes.PyDLL(None).usleep(8_000_000)


def hook_closes_everything() -> None:
    connections.close_all()
    for descriptor in range(3, 64):
        try:
            os.close(descriptor)
        except OSError:
            continue


def hook_forks() -> None:
    if os.fork() == 0:
        return  # Two processes go on with the shutdown now, and the child must not do the parent's.


def hook_starts_threads() -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()


def hook_signals_itself() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        os.kill(os.getpid(), signum)


def hook_dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hook_leaves() -> None:
    os._exit(9)


def lying_hook() -> None:
    """Ends the process with another exit code than the report's, once that is sealed; no fault draws it."""
    atexit.register(os._exit, 3)


WORDLESS = {"hook_dies": -signal.SIGKILL, "hook_leaves": 9, "hook_holds_the_gil": 1}
"""Exit codes of hooks that end the process before it can seal its report; the last one is the watchdog's."""
BAD_HOOKS = tuple(
    f"{__name__}.{name}" for name in sorted(globals()) if name.startswith("hook_") and name != "hook_good"
)
