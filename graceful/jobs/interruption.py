"""Where a job may be interrupted: in its own code, outside ``uninterruptible`` blocks, once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from graceful.exceptions import JobInterrupted, JobMemoryExceeded, JobYielded
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.resume.cursors import Cursors, MemoryStore, Store

T = TypeVar("T")
REASON = "the worker is shutting down"
CHECK_SECONDS = 0.001
"""Shortest interval between two checks for a shutdown in a loop: items can take microseconds."""


class Guard:
    """Decides whether an interruption is raised in the job that runs in this process.

    Args:
        memory: the memory shared with the worker.
        store: where the job's cursors are kept; None keeps them only in memory.
    """

    def __init__(self, memory: SharedMemory, store: Store | None = None) -> None:
        self.memory = memory
        self.cursors = Cursors(store or MemoryStore())
        self.interrupted = False
        self.yielded = False
        """Whether it was not interrupted for a shutdown, but has run for its ``max_runtime``."""
        self.exceeded = False
        """Whether it was told that it has too much memory: it fails for that, whatever else is asked of it."""
        self.settled = False
        """Whether RQ has begun to record the job's success or failure."""
        self.cooperative = True
        """Whether the job may be interrupted between two items before the soft limit: unless that fails it."""
        self.check_every = CHECK_SECONDS
        self.began = time.monotonic()
        """When the job began in this run."""
        self._open = False
        # A list and not a counter with a lock: an interruption could come between acquiring the lock and the block
        # that releases it. append and pop are atomic, for signals and for threads.
        self._shields: list[None] = []
        self._caller: FrameType | None = None
        self._pid = os.getpid()

    @property
    def elsewhere(self) -> bool:
        """Whether this is a process that the job forked: it is not the job, and is not interrupted."""
        return os.getpid() != self._pid

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handler of the interrupt signal, in the job's process: raises if that is allowed here."""
        self._interrupt_if_asked(frame)

    def _interrupt_if_asked(self, frame: FrameType | None = None) -> None:
        if not self._open or self._shields or not self.memory.raises or self.interrupted or self.exceeded:
            return
        if (exceeded := self.memory.exceeded) is not None:
            self.exceeded = True
            raise JobMemoryExceeded.of(self.memory.function, *exceeded)
        self._interrupt(frame or sys._getframe(1))

    def _interrupt(self, frame: FrameType) -> NoReturn:
        self.interrupted = True
        self.memory.write_stack(self.stack_of_job(frame))
        raise JobInterrupted(REASON)

    def check(self) -> None:
        """At a point that suits the job: if a shutdown was requested, save its cursors and interrupt it.

        Also returns if the job must not be interrupted here: in an ``uninterruptible`` block, outside the main thread,
        after it has swallowed an interruption, or if it would be failed for it.

        Raises:
            JobInterrupted: a shutdown was requested.
        """
        if self.memory.announced and self._suits():
            self.save_cursors()
            self._interrupt(sys._getframe(1))

    def check_runtime(self, seconds: float) -> None:
        """At a point that suits the job: if it has run for so long, save its cursors and make room for other jobs.

        Also returns where :meth:`check` does.

        Raises:
            JobYielded: it has.
        """
        if time.monotonic() - self.began >= seconds and self._suits():
            self.save_cursors()
            self.interrupted = self.yielded = True
            raise JobYielded(f"it has run for its max_runtime of {seconds:g} s")

    def _suits(self) -> bool:
        allowed = self._open and not self._shields and self.cooperative and not self.interrupted and not self.exceeded
        return allowed and threading.current_thread() is threading.main_thread()

    def save_cursors(self) -> None:
        """Save the job's cursors; an interruption waits until they are saved."""
        with self.shield():
            self.cursors.save()

    def stack_of_job(self, frame: FrameType | None) -> str:
        """The job's stack, without the frames of the worker that called it."""
        frames = []
        while frame is not None and frame is not self._caller:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        return "".join(traceback.StackSummary.extract(reversed(frames)).format())

    def run(self, perform: Callable[[], T]) -> T:
        """Call ``perform``, interruptible; if it has already returned when the interruption comes, its result is kept.

        Raises:
            JobInterrupted: the job was interrupted.
            JobMemoryExceeded: it has too much memory.
        """
        results: list[T] = []
        self._caller = sys._getframe()
        try:
            try:
                self.begin()
                results.append(perform())
            finally:
                self._open = False
        except (JobInterrupted, JobMemoryExceeded):
            if not results:
                raise
        finally:
            self.end(bool(results))
        # A job that caught the interruption and returned anyway has finished.
        self.interrupted = False
        return results[0]

    def begin(self) -> None:
        """From now on the job may be interrupted.

        Raises:
            JobInterrupted: the interruption was requested before, and no signal comes again.
        """
        self._open = True
        self.began = time.monotonic()
        self.memory.stage = Stage.RUNNING
        self._interrupt_if_asked()

    def end(self, success: bool) -> None:
        """From now on it may not; the cursors of a job that did not succeed are saved for its next run."""
        self._open = False
        self.memory.stage = Stage.STORING
        if not success:
            self.save_cursors()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Defer an interruption until the outermost block ends; see :func:`graceful.jobs.uninterruptible`."""
        self._shields.append(None)
        try:
            yield
        finally:
            self._shields.pop()
            if not self._shields and self.memory.raises:
                if threading.current_thread() is threading.main_thread():
                    self._interrupt_if_asked()
                else:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)


guard: Guard | None = None
"""The guard of the running job; None outside a worker."""


def install(memory: SharedMemory | None, store: Store | None = None) -> Guard | None:
    """Install a new guard in this process; with None, remove it."""
    global guard
    guard = None if memory is None else Guard(memory, store)
    return guard
