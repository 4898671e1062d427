"""One instant on the monotonic clock, handed down instead of recomputed."""

from __future__ import annotations

import time
from typing import NamedTuple


class Deadline(NamedTuple):
    """An instant by which something must be over.

    The clock is ``time.monotonic()``: CLOCK_MONOTONIC on Linux and mach_absolute_time on macOS. Both
    are per machine, so an instant is valid in other processes of the same boot.

    Args:
        at: the instant, in seconds of ``time.monotonic()``.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The instant that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until the deadline, never below zero."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.at

    def earlier(self, seconds: float) -> Deadline:
        """The deadline that many seconds before this one."""
        return Deadline(self.at - seconds)

    def cut_to(self, seconds: float) -> Deadline:
        """This deadline, or the one that many seconds from now if that comes first."""
        return min(self, Deadline.after(seconds))
