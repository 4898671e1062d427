"""Jobs that need memory."""

from __future__ import annotations

import time

from graceful.jobs import uninterruptible
from graceful.memory import MEGABYTE
from tests.support.jobs import note_end, note_start, note_stop

KEPT: list[bytes] = []
"""What jobs that run in the worker's own process leave behind."""


def leaks(megabytes: int) -> None:
    """Leaves so much memory behind in its process."""
    note_start()
    KEPT.append(b"x" * (megabytes * MEGABYTE))
    note_end()


def takes(megabytes: int) -> int:
    """Takes so much memory, and gives it back."""
    note_start()
    size = len(b"x" * (megabytes * MEGABYTE))
    note_end()
    return size


def keeps(megabytes: int, seconds: float = 30.0) -> None:
    """Takes so much memory and keeps it for some seconds, in many short calls."""
    note_start()
    kept = b"x" * (megabytes * MEGABYTE)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
    except BaseException:
        note_stop()
        raise
    note_end()
    del kept


def keeps_stubbornly(megabytes: int, seconds: float = 30.0) -> None:
    """As :func:`keeps`, where nothing can be raised in it."""
    with uninterruptible():
        keeps(megabytes, seconds)
