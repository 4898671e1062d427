"""Where a job may be interrupted: in its own code, outside ``uninterruptible`` blocks, once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from graceful.exceptions import JobInterrupted
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.resume.cursors import Cursors, MemoryStore, Store

T = TypeVar("T")
REASON = "the worker is shutting down"
LOOK_SECONDS = 0.001
"""A loop looks for a shutdown between two items, but no more often than that: items can take microseconds."""


class Guard:
    """The gate through which an interruption reaches the job that runs in this process.

    Args:
        memory: the memory shared with the worker.
        store: where the job's cursors are kept; None keeps them no longer than the guard.
    """

    def __init__(self, memory: SharedMemory, store: Store | None = None) -> None:
        self.memory = memory
        self.notebook = Cursors(store or MemoryStore())
        self.interrupted = False
        self.settled = False
        """Whether RQ has begun to settle the job's end, as success or as failure."""
        self.gives_way = True
        """Whether the job lets itself be interrupted between two items, before its time is up; not if it then fails."""
        self.look_every = LOOK_SECONDS
        self._open = False
        # A list and not a number under a lock: an interruption could come between taking the lock and the block that
        # gives it back. append and pop are whole, for signals and for threads.
        self._shields: list[None] = []
        self._caller: FrameType | None = None
        self._pid = os.getpid()

    @property
    def elsewhere(self) -> bool:
        """Whether this is a process that the job forked: it is not the job, and cannot be interrupted for it."""
        return os.getpid() != self._pid

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handler of the interrupt signal, in the job's process: raises where that is allowed."""
        self._knock(frame)

    def _knock(self, frame: FrameType | None = None) -> None:
        if self._open and not self._shields and self.memory.interrupt and not self.interrupted:
            self._interrupt(frame or sys._getframe(1))

    def _interrupt(self, frame: FrameType) -> NoReturn:
        self.interrupted = True
        self.memory.write_stack(self.stack_of_job(frame))
        raise JobInterrupted(REASON)

    def look(self) -> None:
        """At a point that suits the job: interrupt it if a shutdown was asked for, with its cursors saved.

        Returns otherwise, and also where the job must not be interrupted: in an ``uninterruptible`` block, in another
        thread than the main one, where it has swallowed an interruption already, or would fail by it.

        Raises:
            JobInterrupted: the worker is to stop.
        """
        if not self.memory.announced:
            return
        allowed = self._open and not self._shields and self.gives_way and not self.interrupted
        if allowed and threading.current_thread() is threading.main_thread():
            self.save_notes()
            self._interrupt(sys._getframe(1))

    def save_notes(self) -> None:
        """Save the job's cursors, as a whole."""
        with self.shield():
            self.notebook.save()

    def stack_of_job(self, frame: FrameType | None) -> str:
        """Where the job stands: its own frames, without those of the worker that called it."""
        frames = []
        while frame is not None and frame is not self._caller:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        return "".join(traceback.StackSummary.extract(reversed(frames)).format())

    def run(self, perform: Callable[[], T]) -> T:
        """Call ``perform``, interruptible; its result is kept if the interruption comes when it is already there.

        Raises:
            JobInterrupted: the job was interrupted.
        """
        results: list[T] = []
        self._caller = sys._getframe()
        try:
            try:
                self.begin()
                results.append(perform())
            finally:
                self._open = False
        except JobInterrupted:
            if not results:
                raise
        finally:
            self.end(bool(results))
        # A job that caught the interruption and came to its end all the same has finished.
        self.interrupted = False
        return results[0]

    def begin(self) -> None:
        """From now on the job may be interrupted.

        Raises:
            JobInterrupted: a horse that was told before it came this far has had no signal since.
        """
        self._open = True
        self.memory.stage = Stage.RUNNING
        self._knock()

    def end(self, success: bool) -> None:
        """From now on it may not; the cursors of a job without success are saved, for its next run."""
        self._open = False
        self.memory.stage = Stage.STORING
        if not success:
            self.save_notes()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold an interruption back until the outermost block ends; see :func:`graceful.jobs.uninterruptible`."""
        self._shields.append(None)
        try:
            yield
        finally:
            self._shields.pop()
            if not self._shields and self.memory.interrupt:
                if threading.current_thread() is threading.main_thread():
                    self._knock()
                else:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)


guard: Guard | None = None
"""The guard of the job in hand; None outside a worker."""


def install(memory: SharedMemory | None, store: Store | None = None) -> Guard | None:
    """Make a new guard the one of this process; None takes it away."""
    global guard
    guard = None if memory is None else Guard(memory, store)
    return guard
