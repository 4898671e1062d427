"""Whether a worker has grown too large or too old, so that another one had better take the next job.

It ends gracefully between two jobs, as after ``--max-jobs``; whatever has started it starts another one.
"""

from __future__ import annotations

import logging
import time

from graceful import memory
from graceful.conf import Settings
from graceful.core.phases import Reason
from graceful.memory import MEGABYTE

log = logging.getLogger("graceful.worker")
LARGEST = "Worker %s: ends between two jobs above %d MB; its control group allows %s"
ABOVE_GROUP = "Worker %s: its limit of %d MB is not below what its control group allows, %d MB: the kernel kills first"
TOO_SMALL = "Worker %s: its limit of %d MB is below the %d MB that it has before its first job: it ends after each job"
TOO_LARGE = "Worker %s: %d MB, and %d MB of its last work horse, are above %d MB, quitting"
TOO_OLD = "Worker %s: older than %g seconds, quitting"
UNREADABLE = "Worker %s: its memory cannot be read, and is not limited"


class Recycling:
    """The limits of one worker, and whether it has reached them.

    Args:
        name: the worker's name.
        settings: the settings that hold for it; without ``max_memory`` and ``max_age`` nothing is read or compared.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._largest = settings.max_memory
        self._oldest = settings.max_age
        self._ends_at = None if self._oldest is None else time.monotonic() + self._oldest
        self.horse_peak = 0
        """The most that the last work horse had resident, in bytes; 0 where jobs run in the worker itself."""

    def begin(self) -> None:
        """Before the first job: log what holds, and what cannot work."""
        if self._largest is None:
            return
        now, group = memory.resident(), memory.control_group_limit()
        allowed = "as much as there is" if group is None else f"{group // MEGABYTE} MB"
        log.info(LARGEST, self._name, self._largest, allowed)
        if group is not None and self._largest * MEGABYTE >= group:
            log.warning(ABOVE_GROUP, self._name, self._largest, group // MEGABYTE)
        if now is None:
            log.warning(UNREADABLE, self._name)
        elif now > self._largest * MEGABYTE:
            log.warning(TOO_SMALL, self._name, self._largest, now // MEGABYTE)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the worker is too old; None if it never is."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def after_job(self) -> Reason | None:
        """Why the worker is to take no other job after the one that has just ended; None if it may."""
        if self._largest is not None:
            own = memory.resident() or 0
            if own + self.horse_peak > self._largest * MEGABYTE:
                log.info(TOO_LARGE, self._name, own // MEGABYTE, self.horse_peak // MEGABYTE, self._largest)
                return Reason.MEMORY
        return self.too_old()

    def too_old(self) -> Reason | None:
        """:attr:`Reason.AGE` if the worker is too old."""
        if self.seconds_left != 0:
            return None
        log.info(TOO_OLD, self._name, self._oldest)
        return Reason.AGE
