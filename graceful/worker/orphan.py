"""How a horse learns that its worker is gone: by a signal on Linux, by looking every second elsewhere.

``prctl(PR_SET_PDEATHSIG)`` (prctl(2)) has the kernel send the signal when the thread that forked ends; RQ forks in
the worker's main thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

from graceful.worker.os_signals import INTERRUPT_SIGNAL

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 1.0

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def watch(worker_pid: int) -> None:
    """Have the interrupt signal sent to this process when its worker ends, or at once if it already has."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(INTERRUPT_SIGNAL), 0, 0, 0)
        if os.getppid() != worker_pid:
            os.kill(os.getpid(), INTERRUPT_SIGNAL)
        return
    threading.Thread(target=_look, args=(worker_pid,), name="graceful-orphan", daemon=True).start()


def _look(worker_pid: int) -> None:
    while os.getppid() == worker_pid:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), INTERRUPT_SIGNAL)
