"""The last resort: ends the process at a deadline, even while C code holds the GIL.

``faulthandler`` does so in a C thread that does not need the GIL. It first writes the stacks of all threads; the exit
code is then always 1. There is one such timer per process: arming it again moves it. A forked child has none until it
arms its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
from typing import IO

from graceful.core.deadline import Deadline
from graceful.hooks import log

logger = logging.getLogger("graceful.hooks")

_own_stderr: int | None = None


def arm(deadline: Deadline, file: IO[str] | int | None = None) -> None:
    """End the process at the deadline, unless :func:`disarm` comes first; logs a warning if no thread can be started.

    Args:
        deadline: when the process has to be gone.
        file: where the stacks go: a file with a descriptor, or a descriptor; by default a duplicate of the current
            stderr, so that code that closes or replaces stderr has no effect.
    """
    seconds = max(0.001, deadline.left())
    try:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr() if file is None else file)
    except RuntimeError as error:  # "unable to start watchdog thread": the limit of threads is reached.
        logger.warning(log.NO_WATCHDOG, error)


def disarm() -> None:
    """Cancel the timer; nothing happens if it was not armed."""
    global _own_stderr
    faulthandler.cancel_dump_traceback_later()
    if _own_stderr is not None:
        with contextlib.suppress(OSError):  # A hook may have closed all descriptors.
            os.close(_own_stderr)
        _own_stderr = None


def _stderr() -> int:
    global _own_stderr
    if _own_stderr is None:
        try:
            _own_stderr = os.dup(2)
        except OSError:  # closed, as in a daemon
            _own_stderr = os.open(os.devnull, os.O_WRONLY)
    return _own_stderr
