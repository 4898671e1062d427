"""The places of a pool's workers."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

FIRST_LOOK_SECONDS = 0.3
"""From a worker's start to its first look for a job, amply."""


@dataclass
class Place:
    """The place of one worker: whoever is in it, or when somebody is to come."""

    number: int
    pid: int = 0
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    leaving: bool = False
    """It is empty for good once its worker has ended."""
    old: bool = False
    """Its worker runs the code from before a SIGHUP."""
    renewed: bool = False
    """Its worker was asked to end for that, and another one is to come."""
    up: int | None = None
    """Until its worker takes jobs: the descriptor that says so."""

    up_at: float = 0.0

    @property
    def state(self) -> str:
        """``"waiting"`` to be started, ``"starting"``, ``"up"``: takes jobs, or ``"leaving"``."""
        if not self.pid:
            return "waiting" if self.failures else "starting"
        if self.leaving or self.renewed:
            return "leaving"
        return "starting" if self.up is not None else "up"

    def is_up(self) -> None:
        """Its worker takes jobs, or has ended: the other end of the pipe is closed."""
        if self.up is not None:
            os.close(self.up)
            self.up, self.up_at = None, time.monotonic() + FIRST_LOOK_SECONDS

    def handed_on(self) -> dict[str, int]:
        """What the process must know of it that executes itself anew; seconds until a worker comes are rounded up."""
        wait = 0 if self.pid else math.ceil(max(0.0, self.start_at - time.monotonic()))
        told = {"number": self.number, "pid": self.pid, "failures": self.failures, "wait": wait}
        return {**told, "leaving": self.leaving, "renewed": self.renewed}

    @classmethod
    def adopted(cls, told: dict[str, int], now: float) -> Place:
        """The place that was handed on."""
        place = cls(told["number"], told["pid"], now, told["failures"], now + told["wait"])
        place.leaving, place.renewed = bool(told["leaving"]), bool(told["renewed"])
        # One that was asked to end must not be asked twice, which would hurry it.
        place.old = bool(place.pid) and not place.leaving and not place.renewed
        return place

    def rising(self, now: float) -> bool:
        """Whether its worker does not look for jobs yet."""
        return self.up is not None or now < self.up_at

    def fileno(self) -> int:
        return -1 if self.up is None else self.up
