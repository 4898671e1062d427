"""Threads that have to work at the limit of threads, and calls that must come to an end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("graceful.worker")


def started(thread: threading.Thread) -> threading.Thread | None:
    """Start a thread; None where there is none to be had, as at the process limit of a container."""
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread" (Thread.start)
        log.warning("The thread %s could not be started: %s", thread.name, error)
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
                log.exception("%s failed", threading.current_thread().name)
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

    @property
    def goes_on(self) -> bool:
        """Whether its thread has not come to the end yet."""
        return self._thread is not None and self._thread.is_alive()

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
