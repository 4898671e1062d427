"""Things of the operating system that more than one room of the worker needs."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, NoReturn, TypeVar

from django.db import connections

from graceful.core.deadline import Deadline
from graceful.hooks import watchdog
from graceful.hooks.builtin import has_pool

T = TypeVar("T")
SHORTEST_SECONDS = 0.05
WATCHDOG_MARGIN = 0.1
"""So many seconds before the watchdog, which knows one exit code only, a thread ends the process with the right one."""


class Bounded(Generic[T]):
    """A call in a thread of its own, so that waiting for it has an end.

    Args:
        call: what to do; a daemon thread does it, and goes on alone when nobody waits any more.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.value: T | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="graceful-bounded", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Wait for the call's end, at most so many seconds.

        Returns:
            True if it ended without an error in time.
        """
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.error = TimeoutError(f"no answer within {seconds:.2f} s")
        return self.error is None


def bounded(call: Callable[[], T], seconds: float) -> Bounded[T]:
    """Do ``call`` and wait for it at most so many seconds; see :class:`Bounded` for what came of it."""
    doing = Bounded(call)
    doing.wait(seconds)
    return doing


def close_database_connections() -> None:
    """Close what a child must not inherit: connections, and pools with their threads."""
    opened: Iterable[Any] = connections.all(initialized_only=True)
    for connection in opened:
        connection.close()
        if has_pool(connection):
            connection.close_pool()


def leave_by(code: int, seconds: float) -> None:
    """See to it that the process ends within so many seconds, whatever it does until then.

    Args:
        code: the exit code; it is 1 where C code holds the GIL.
        seconds: until then.
    """
    watchdog.arm(Deadline.after(max(SHORTEST_SECONDS, seconds)))
    last_resort = threading.Timer(max(SHORTEST_SECONDS / 2, seconds - WATCHDOG_MARGIN), os._exit, (code,))
    last_resort.daemon = True
    try:
        last_resort.start()
    except RuntimeError:
        pass  # No thread to be had.


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
