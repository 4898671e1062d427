"""Leaving a process at once, with the right exit code and nothing lost."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from typing import NoReturn

from graceful.core.deadline import Deadline
from graceful.hooks import watchdog
from graceful.threads import started

SHORTEST_SECONDS = 0.05
WATCHDOG_MARGIN = 0.1
"""So many seconds before the watchdog, which knows one exit code only, a thread ends the process with the right one."""


def leave_by(code: int, seconds: float) -> threading.Timer:
    """See to it that the process ends within so many seconds, whatever it does until then.

    Args:
        code: the exit code; it is 1 where C code holds the GIL.
        seconds: until then. Where that is over already, and the process may be busy, it gets a little more: the
            thread, which knows the exit code, must come before the watchdog, which does not.

    Returns:
        what ends it; to be cancelled, and the watchdog to be disarmed, by whoever stays after all.
    """
    by = max(SHORTEST_SECONDS, seconds - WATCHDOG_MARGIN)
    watchdog.arm(Deadline.after(by + WATCHDOG_MARGIN))
    last_resort = threading.Timer(by, os._exit, (code,))
    last_resort.daemon = True
    started(last_resort)
    watchdog.arm(Deadline.after(by + WATCHDOG_MARGIN))  # Starting a thread takes its time where the GIL is wanted.
    return last_resort


def leave(code: int, seconds: float = 1.0) -> NoReturn:
    """End the process at once, with nothing lost that Python would have written.

    Tearing the interpreter down costs a Django process 60 to 70 ms. After the atexit functions (``logging.shutdown``
    is one of them) and the flushing of the standard streams there is nothing left that it is needed for.

    Args:
        code: the exit code.
        seconds: how long the atexit functions may take; ``multiprocessing``'s waits for children without any limit.
    """
    leave_by(code, seconds)
    try:
        atexit._run_exitfuncs()
    except BaseException:
        logging.getLogger("graceful.worker").exception("An atexit function failed")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # Closed, or nobody reads it any more.
    os._exit(code)
