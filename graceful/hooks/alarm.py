"""The alarm that interrupts a hook in the main thread at its timeout: SIGALRM, repeated while the hook swallows it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from graceful.exceptions import HookTimedOut
from graceful.hooks.calls import INVOKE_CODE, inside_invoke
from graceful.hooks.stacks import Stack, frame_stack

REPEAT_SECONDS = 0.1
"""Interval at which :class:`HookTimedOut` is raised again in a hook that swallows it."""


class Alarm:
    """SIGALRM and its timer, within a ``with`` block; handler, timer and signal mask are restored at its end.

    Outside the main thread, where Python does not allow signal handlers to be set, it does nothing.
    """

    def __init__(self) -> None:
        self.works = threading.current_thread() is threading.main_thread()
        self._pid = os.getpid()
        self._reason = ""
        self._on_ring: Callable[[Stack], None] = _ignore

    def __enter__(self) -> Self:
        if self.works:
            self._entered = time.monotonic()
            self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            self._old_timer = signal.setitimer(signal.ITIMER_REAL, 0)
            self._old_handler = signal.getsignal(signal.SIGALRM)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self.works or os.getpid() != self._pid:
            return
        self.off()
        # None means a handler that was not set from Python, and that Python cannot restore.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._old_handler is None else self._old_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
        seconds, interval = self._old_timer
        if seconds:
            passed = time.monotonic() - self._entered
            signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds - passed), interval)

    def set(self, seconds: float, reason: str, on_ring: Callable[[Stack], None]) -> None:
        """Ring in so many seconds, and repeatedly from then on.

        An earlier hook may have replaced the handler or blocked the signal; both are corrected.

        Args:
            seconds: until it rings.
            reason: the text of the :class:`HookTimedOut` that is raised.
            on_ring: called with the interrupted stack, each time, in the signal handler.
        """
        if not self.works:
            return
        self._reason = reason
        self._on_ring = on_ring
        signal.signal(signal.SIGALRM, self._ring)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, max(0.000_001, seconds), REPEAT_SECONDS)

    def off(self) -> None:
        """Stop ringing; may be called from any thread."""
        if self.works:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        # Raised only while the hook is being called: one that has just returned is not interrupted, and no exception
        # is raised in the runner's own code, whenever the signal arrives.
        if os.getpid() == self._pid and inside_invoke(frame):
            self._on_ring(frame_stack(frame, below=INVOKE_CODE))
            raise HookTimedOut(self._reason)


def _ignore(stack: Stack) -> None:
    return None
