"""Signals between the end of a worker and the end of its process."""

from __future__ import annotations

import atexit
import os
import signal
import time
from types import FrameType
from typing import Any

WAY_OUT_SECONDS = 1.0
"""Stop signals that come so soon after the end of a worker that was told to stop belong to that request."""


class WayOut:
    """Stop signals between the end of a worker that was told to stop and the end of its process.

    The report is sealed: a further SIGTERM must not replace its exit code by -15. They are ignored for
    :data:`WAY_OUT_SECONDS`, and from the interpreter's exit on to the end of the process. A program that does not end
    has its own handlers back after that time.

    Args:
        old_handlers: the handlers to come back, by signal.
    """

    def __init__(self, old_handlers: dict[signal.Signals, Any]) -> None:
        self._old_handlers = old_handlers
        self._until = time.monotonic() + WAY_OUT_SECONDS
        for signum in old_handlers:
            signal.signal(signum, self._handle)
        # Last registered, first run; the interpreter itself would put SIG_DFL in a Python handler's place.
        atexit.register(self._ignore)

    def end(self) -> None:
        """Put the old handlers back, unless somebody has set others meanwhile."""
        atexit.unregister(self._ignore)
        for signum, handler in self._old_handlers.items():
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if time.monotonic() >= self._until:
            self.end()
            os.kill(os.getpid(), signum)

    def _ignore(self) -> None:
        if time.monotonic() >= self._until:
            return
        for signum in self._old_handlers:
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, signal.SIG_IGN)
