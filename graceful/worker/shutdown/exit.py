"""Things of the operating system that more than one room of the worker needs."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Generic, NoReturn, TypeVar

from django.db import connections

from graceful.core.deadline import Deadline
from graceful.hooks import watchdog
from graceful.hooks.builtin import has_pool

T = TypeVar("T")
SHORTEST_SECONDS = 0.05
WATCHDOG_MARGIN = 0.1
"""So many seconds before the watchdog, which knows one exit code only, a thread ends the process with the right one."""


def started(thread: threading.Thread) -> threading.Thread | None:
    """Start a thread; None where there is none to be had, as at the process limit of a container."""
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread" (Thread.start)
        logging.getLogger("graceful.worker").warning("The thread %s could not be started: %s", thread.name, error)
        return None
    return thread


class Standby:
    """A thread that was started in time, for calls that must not fail because there is none to be had.

    Args:
        name: of the thread.

    Raises:
        RuntimeError: there is none to be had now.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], object], threading.Event] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, call: Callable[[], object]) -> threading.Event:
        """Have it call something after what it was given before; the event is set when that is over."""
        done = threading.Event()
        self._calls.put((call, done))
        return done

    def dismiss(self) -> None:
        """Have it end after what it was given before."""
        self._calls.put(None)

    def _run(self) -> None:
        while (given := self._calls.get()) is not None:
            call, done = given
            try:
                call()
            except Exception:
                logging.getLogger("graceful.worker").exception("%s failed", threading.current_thread().name)
            finally:
                done.set()


class Bounded(Generic[T]):
    """A call in a thread of its own, so that waiting for it has an end.

    Args:
        call: what to do; a daemon thread does it, and goes on alone when nobody waits any more.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.value: T | None = None
        self.error: BaseException | None = None
        self._thread = started(threading.Thread(target=self.run, name="graceful-bounded", daemon=True))
        if self._thread is None:
            self.error = RuntimeError("no thread could be started for it")

    @property
    def has_thread(self) -> bool:
        """Whether a thread could be started for it; without one it is not done."""
        return self._thread is not None

    def run(self) -> None:
        """Do it in the calling thread."""
        self.error = None
        try:
            self.value = self._call()
        except BaseException as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Wait for the call's end, at most so many seconds.

        Returns:
            True if it ended without an error in time.
        """
        if self._thread is None:
            return self.error is None
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.error = TimeoutError(f"no answer within {seconds:.2f} s")
        return self.error is None


def bounded(call: Callable[[], T], seconds: float) -> Bounded[T]:
    """Do ``call`` and wait for it at most so many seconds; see :class:`Bounded` for what came of it.

    Without a thread to be had it is done in this one: the time-outs of Redis's sockets then are its only bound.
    """
    doing = Bounded(call)
    if not doing.has_thread:
        doing.run()
    doing.wait(seconds)
    return doing


def close_database_connections() -> None:
    """Close what a child must not inherit: connections, and pools with their threads."""
    opened: Iterable[Any] = connections.all(initialized_only=True)
    for connection in opened:
        connection.close()
        if has_pool(connection):
            connection.close_pool()


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
