"""What a pool of workers does when one of them has ended, and with which code it ends itself."""

from __future__ import annotations

import os
from enum import Enum
from typing import NamedTuple

HEALTHY_SECONDS = 60.0
"""A worker that lived so long is not counted among those that fail one after the other."""
LONGEST_PAUSE = 30.0
WORST_LAST = (os.EX_OK, os.EX_TEMPFAIL, os.EX_UNAVAILABLE, os.EX_SOFTWARE)
"""Exit codes of workers that were stopped: clean, jobs interrupted, Redis lost, forced or a hook failed."""


class Next(Enum):
    """What becomes of the place of a worker that has ended without having been asked to."""

    REPLACE = "replace"
    DONE = "done"
    GIVE_UP = "give up"


class Decision(NamedTuple):
    """What to do, how many workers have failed in that place one after the other, and after how many seconds."""

    next: Next
    failures: int = 0
    seconds: float = 0.0


def after_end(code: int, lived: float, failures: int, *, ends_by_itself: bool) -> Decision:
    """Decide about the place of a worker that has ended though nobody stopped the pool.

    Args:
        code: its exit code; negative for the signal that ended it.
        lived: seconds for which it ran.
        failures: how many have failed in its place before, one after the other.
        ends_by_itself: workers may end for good, after a burst or idleness.
    """
    if code == os.EX_CONFIG:
        return Decision(Next.GIVE_UP)
    if code == os.EX_OK:
        return Decision(Next.DONE if ends_by_itself else Next.REPLACE)
    failures = 1 if lived >= HEALTHY_SECONDS else failures + 1
    return Decision(Next.REPLACE, failures, min(LONGEST_PAUSE, 2.0 ** (failures - 1)))


def worst(codes: list[int]) -> int:
    """The exit code of a pool whose workers have ended with these; that of a killed or crashed one counts as 70."""
    known = [code if code in WORST_LAST else os.EX_SOFTWARE for code in codes]
    return max(known, key=WORST_LAST.index, default=os.EX_OK)
