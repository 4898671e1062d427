"""The places of a pool's workers."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass

from graceful import signals

FIRST_LOOK_SECONDS = 0.3
"""From a worker's start to its first look for a job, amply."""
UP, QUIET, RESUMED = b"u", b"q", b"r"
"""What a worker says to the parent."""


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
    quiet: bool = False
    """Its worker takes no new job; another one that comes into this place begins quiet, too."""
    up: bool = False
    """Its worker has started."""
    up_at: float = 0.0
    ear: int | None = None
    """The end of a pipe from which the parent reads what its worker says; None without a worker."""

    @property
    def state(self) -> str:
        """``"waiting"`` to be started, ``"starting"``, ``"up"``: takes jobs, ``"quiet"`` or ``"leaving"``."""
        if not self.pid:
            return "waiting" if self.failures else "starting"
        if self.leaving or self.renewed:
            return "leaving"
        if not self.up:
            return "starting"
        return "quiet" if self.quiet else "up"

    def open_mouth(self) -> int:
        """Before its worker is forked: the end of a pipe to which that writes."""
        self.ear, mouth = os.pipe()
        os.set_blocking(self.ear, False)
        return mouth

    def listen(self) -> None:
        """Its worker has said something."""
        assert self.ear is not None
        words = os.read(self.ear, 4096)
        if not words:  # It has closed all its descriptors, or has ended, which the parent sees by itself.
            self.close_ear()
        if UP in words:
            self.up, self.up_at = True, time.monotonic() + FIRST_LOOK_SECONDS
        if states := words.replace(UP, b""):
            self.quiet = states.endswith(QUIET)

    def close_ear(self) -> None:
        if self.ear is not None:
            os.close(self.ear)
            self.ear = None

    def ended(self) -> None:
        """Its worker has."""
        self.close_ear()
        self.pid, self.up = 0, False

    def handed_on(self) -> dict[str, int]:
        """What the process must know of it that executes itself anew; seconds until a worker comes are rounded up."""
        wait = 0 if self.pid else math.ceil(max(0.0, self.start_at - time.monotonic()))
        if self.ear is not None:
            os.set_inheritable(self.ear, True)
        told = {"number": self.number, "pid": self.pid, "failures": self.failures, "wait": wait, "up": self.up}
        ear = -1 if self.ear is None else self.ear
        return {**told, "leaving": self.leaving, "renewed": self.renewed, "quiet": self.quiet, "ear": ear}

    @classmethod
    def adopted(cls, told: dict[str, int], now: float) -> Place:
        """The place that was handed on."""
        place = cls(told["number"], told["pid"], now, told["failures"], now + told["wait"])
        place.leaving, place.renewed = bool(told["leaving"]), bool(told["renewed"])
        place.up, place.quiet = bool(told["up"]), bool(told["quiet"])
        if told["ear"] >= 0:
            place.ear = told["ear"]
            os.set_inheritable(place.ear, False)
        # One that was asked to end must not be asked twice, which would hurry it.
        place.old = bool(place.pid) and not place.leaving and not place.renewed
        return place

    def rising(self, now: float) -> bool:
        """Whether its worker does not look for jobs yet."""
        return not self.up or now < self.up_at

    def fileno(self) -> int:
        return -1 if self.ear is None else self.ear


def speak(mouth: int) -> None:
    """In a worker: tell the parent how it is.

    Args:
        mouth: of :meth:`Place.open_mouth`.
    """

    def say(word: bytes) -> None:
        with contextlib.suppress(OSError):  # The parent is gone, or a hook has closed all descriptors.
            os.write(mouth, word)

    signals.worker_started.connect(lambda **_: say(UP), weak=False)
    signals.quiet_changed.connect(lambda quiet, **_: say(QUIET if quiet else RESUMED), weak=False)
