"""The line of a command that waits: how far it is."""

from __future__ import annotations

import math
import time

from django.core.management.base import OutputWrapper

SAY_AGAIN_SECONDS = 30.0
"""Without a terminal, what has not changed is said again after so long."""


class ProgressLine:
    """One line that is written over on a terminal; elsewhere one whenever something has changed.

    Args:
        out: the command's stdout.
    """

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._began = time.monotonic()
        self._said, self._said_at = "", -math.inf

    def show(self, text: str) -> None:
        """Say it, with the seconds that have passed before it."""
        now = time.monotonic()
        line = f"{now - self._began:4.0f} s  {text}"
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{line}", ending="")
            self._out.flush()
        elif text != self._said or now - self._said_at >= SAY_AGAIN_SECONDS:
            self._out.write(line)
            self._out.flush()
            self._said, self._said_at = text, now

    def end(self) -> None:
        """What is written next is on a line of its own."""
        if self._out.isatty():
            self._out.write("")
