"""Jobs and the hook of the benchmarks. Times are ``time.monotonic()``, one clock for the whole machine."""

from __future__ import annotations

import time

from tests.support.jobs import current_job

ENDS = "bench:ends"
"""List of the instants at which jobs ended."""
STARTS = "bench:starts"
"""List of the instants at which jobs began."""


def stamped(seconds: float = 0.0) -> None:
    """Sleeps, and notes when it began and ended."""
    began = time.monotonic()
    if seconds:
        connection = current_job().connection
        connection.rpush(STARTS, began)
        time.sleep(seconds)
        connection.rpush(ENDS, time.monotonic())
    else:
        current_job().connection.rpush(ENDS, began)


def hook() -> str:
    """An exit hook."""
    return "flushed nothing"
