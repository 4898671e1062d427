"""Workers for which the operating system has no thread and no process any more.

SIGUSR2 makes it so in a running worker: ``RLIMIT_NPROC`` of one process for a user that already has that many, as a
container's limit of pids does. The kernel holds it against nobody who is root or may exceed resource limits, so these
workers give up both at their start. Other systems count no threads: there the start of one raises what it would raise.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from rq import SimpleWorker, Worker

USER = 54_321
"""A user of no other process: what others do does not count."""
CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24
CAPABILITY_VERSION_3 = 0x20080522


class Starvable:
    """Takes away all further threads and processes at SIGUSR2, and says so on standard output."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if sys.platform == "linux" and os.getuid() == 0:
            os.setresuid(USER, 0, 0)
            _drop(CAP_SYS_ADMIN, CAP_SYS_RESOURCE)
        signal.signal(signal.SIGUSR2, _starve)


class StarvableWorker(Starvable, Worker):
    """With horses."""


class StarvableSimpleWorker(Starvable, SimpleWorker):
    """Without."""


def _starve(signum: int, frame: FrameType | None) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    else:
        threading.Thread.start = os.fork = _refuse  # type: ignore[method-assign, assignment]
    print("starved", flush=True)


def _refuse(*args: Any) -> NoReturn:
    raise BlockingIOError("no process") if not args else RuntimeError("can't start new thread")


def _drop(*capabilities: int) -> None:
    """Give up capabilities (capset(2)) of this thread and those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for capability in capabilities:
        for place in range(3):  # effective, permitted, inheritable: the lower words stand first
            sets[place] &= ~(1 << capability)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
