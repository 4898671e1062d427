"""Where a job may be interrupted: in its own code, outside ``uninterruptible`` blocks, once."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from graceful.exceptions import JobInterrupted
from graceful.jobs.channel import Channel, Stage

T = TypeVar("T")
REASON = "the worker is shutting down"


class Guard:
    """The gate through which an interruption reaches the job that runs in this process.

    Args:
        channel: the memory shared with the worker.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.interrupted = False
        self._open = False
        self._shields = 0
        self._caller: FrameType | None = None
        self._lock = threading.Lock()

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handler of the interrupt signal, in the job's process: raises where that is allowed."""
        self._knock(frame)

    def _knock(self, frame: FrameType | None = None) -> None:
        if self._open and self._shields == 0 and self.channel.interrupt and not self.interrupted:
            self.interrupted = True
            self.channel.write_stack(self._stack_of_job(frame or sys._getframe(1)))
            raise JobInterrupted(REASON)

    def _stack_of_job(self, frame: FrameType | None) -> str:
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
        done = False
        self._caller = sys._getframe()
        try:
            try:
                self._open = True
                self.channel.stage = Stage.RUNNING
                # A horse that was told before it came this far has had no signal since.
                self._knock()
                result = perform()
                done = True
            finally:
                self._open = False
                self.channel.stage = Stage.STORING
        except JobInterrupted:
            if not done:
                raise
        # A job that caught the interruption and came to its end all the same has finished.
        self.interrupted = False
        return result

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold an interruption back until the outermost block ends; see :func:`graceful.jobs.uninterruptible`."""
        with self._lock:
            self._shields += 1
        try:
            yield
        finally:
            with self._lock:
                self._shields -= 1
                last = self._shields == 0
            if last and self.channel.interrupt:
                if threading.current_thread() is threading.main_thread():
                    self._knock()
                else:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)


guard: Guard | None = None
"""The guard of the job in hand; None outside a worker."""


def install(channel: Channel | None) -> Guard | None:
    """Make a new guard the one of this process; None takes it away."""
    global guard
    guard = None if channel is None else Guard(channel)
    return guard
