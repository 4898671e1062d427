"""How a worker's child learns that its worker is gone: by a signal on Linux, by looking every second elsewhere.

``prctl(PR_SET_PDEATHSIG)`` (prctl(2)) has the kernel send the signal when the thread that forked ends; RQ forks in
the worker's main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graceful.worker.shutdown.os_signals import INTERRUPT_SIGNAL

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 1.0

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def watch(worker_pid: int, signum: signal.Signals = INTERRUPT_SIGNAL) -> None:
    """Have a signal sent to this process when its worker ends, or at once if it already has."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != worker_pid:
            os.kill(os.getpid(), signum)
        return
    threading.Thread(target=_look, args=(worker_pid, signum), name="graceful-parent-death", daemon=True).start()


@contextmanager
def followed() -> Iterator[None]:
    """Children forked in this block get a SIGTERM when this process ends: RQ's scheduler would go on for ever."""
    global _worker_pid
    _worker_pid = os.getpid()
    try:
        yield
    finally:
        _worker_pid = 0


_worker_pid = 0


def _after_fork() -> None:
    global _worker_pid
    worker_pid, _worker_pid = _worker_pid, 0
    if worker_pid:
        watch(worker_pid, signal.SIGTERM)


os.register_at_fork(after_in_child=_after_fork)


def _look(worker_pid: int, signum: signal.Signals) -> None:
    while os.getppid() == worker_pid:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signum)
