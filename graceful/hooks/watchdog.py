"""The last resort: ends the process at a given instant, even while C code holds the GIL.

``faulthandler`` does it in a thread of its own that needs no GIL. Before it ends the process it writes the stacks
of all threads; the exit code is then 1, the only one that it knows. There is one such timer in a process:
arming it again moves it. A forked child has none, until it arms its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
from typing import IO

from graceful.core.deadline import Deadline

logger = logging.getLogger("graceful.hooks")

_own_stderr: int | None = None


def arm(deadline: Deadline, file: IO[str] | int | None = None) -> None:
    """End the process at the deadline, unless :func:`disarm` comes first; a log line where no thread is to be had.

    Args:
        deadline: when the process has to be gone.
        file: where the stacks go: a file with a descriptor, or a descriptor; by default the standard error stream as it
            is now, so that code that closes it or puts another file in its place does no harm.
    """
    seconds = max(0.001, deadline.left())
    try:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr() if file is None else file)
    except RuntimeError as error:  # "unable to start watchdog thread": the limit of threads is reached.
        logger.warning("The watchdog could not be started: %s", error)


def disarm() -> None:
    """End nothing any more; nothing happens if it was not armed."""
    global _own_stderr
    faulthandler.cancel_dump_traceback_later()
    if _own_stderr is not None:
        with contextlib.suppress(OSError):  # A hook may have closed every descriptor there is.
            os.close(_own_stderr)
        _own_stderr = None


def _stderr() -> int:
    global _own_stderr
    if _own_stderr is None:
        try:
            _own_stderr = os.dup(2)
        except OSError:  # a daemon may have closed it
            _own_stderr = os.open(os.devnull, os.O_WRONLY)
    return _own_stderr
