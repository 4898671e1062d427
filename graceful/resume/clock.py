"""What job code may ask: was a shutdown requested, and how much time is left?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graceful.jobs import interruption


def shutdown_requested() -> bool:
    """Whether the worker that runs this job was asked to stop.

    Cheap enough for an inner loop: it reads one byte of memory. False outside a worker.
    """
    guard = interruption.guard
    return guard is not None and guard.memory.announced


def time_left() -> float | None:
    """Seconds until this job is interrupted, never below zero; None while no shutdown was asked for."""
    guard = interruption.guard
    limits = guard.memory.limits if guard is not None else None
    return None if limits is None else limits.soft.left()


@contextmanager
def uninterruptible() -> Iterator[None]:
    """Defer an interruption until the end of the block, at most until the hard limit.

    A context manager and a decorator. Nests; holds for all threads of the job. Does nothing outside a worker.

    Raises:
        JobInterrupted: at the end of the outermost block, if the interruption came within it.
    """
    guard = interruption.guard
    if guard is None:
        yield
        return
    with guard.shield():
        yield
