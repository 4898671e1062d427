"""What a pool's parent says of itself to probes and to systemd, from its own loop: who forks has no threads."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from graceful.core.deadline import Deadline
from graceful.worker.pool.place import Place
from graceful.worker.probes.listeners import Listeners
from graceful.worker.probes.server import NOT_LISTENING, ProbeServer
from graceful.worker.probes.systemd import Notifier

log = logging.getLogger("graceful.worker")


class PoolSigns:
    """Answers probes, and tells systemd, whenever the parent's loop comes by; does nothing where nobody wants to know.

    Args:
        name: the pool's.
        listeners: where probes are answered; None without.
        notifier: the way to systemd; None without.
    """

    def __init__(self, name: str, listeners: Listeners | None, notifier: Notifier | None) -> None:
        self._name = name
        self._listeners = listeners
        self._server = None if listeners is None else ProbeServer(listeners.sockets, self)
        self._notifier = notifier
        self._places: Sequence[Place] = ()
        self._end: Deadline | None = None
        self._ping_at = 0.0
        self._said = ""
        self._told_ready = self._told_stopping = False

    # For probes.

    def why_not_alive(self) -> str:
        """Never anything: a loop that hangs gives no answer at all."""
        return ""

    def why_not_ready(self) -> str:
        """Why no worker takes jobs; empty where one does."""
        if self._end is not None:
            return "stopping"
        if self._up():
            return ""
        return "quiet" if any(place.state == "quiet" for place in self._places) else "starting"

    def status(self) -> dict[str, Any]:
        """The workers by their places, and how long a stop may take yet."""
        why, end = self.why_not_ready(), self._end
        return {
            "pool": self._name,
            "phase": "running" if end is None else "stopping",
            "alive": True,
            "ready": not why,
            "not_ready": why,
            "workers": [
                {"number": place.number, "pid": place.pid or None, "state": place.state} for place in self._places
            ],
            "seconds_left": None if end is None else round(end.left(), 1),
        }

    # The loop's.

    @property
    def awaited(self) -> list[Any]:
        """Sockets on which somebody may ask."""
        return [] if self._server is None else self._server.sockets

    @property
    def seconds(self) -> float:
        """Within which the loop has to come by."""
        return (self._notifier.ping_seconds if self._notifier else 0.0) or math.inf

    def come_by(self, places: Sequence[Place], end: Deadline | None, *, renewing: bool) -> None:
        """Answer who has asked; tell systemd what has changed.

        Args:
            places: the workers.
            end: by when all have to be gone; None where nobody has asked for a stop.
            renewing: new code is being loaded, or workers with the old code are left.
        """
        self._places, self._end = places, end
        if self._server is not None:
            try:
                self._server.look(0.0)
            except OSError as error:  # The workers are worth more than an answer.
                log.warning(NOT_LISTENING, error)
                self._server = None
        if self._notifier is not None:
            self._tell(self._notifier, renewing)

    def reloading(self) -> None:
        """New code is being loaded (``Type=notify-reload``); READY=1 follows."""
        if self._notifier is not None:
            self._told_ready = False
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def ended(self, code: int) -> None:
        """The pool ends with this exit code."""
        if self._notifier is not None:
            self._notifier.send(f"STATUS=exit code {code}", last=True)
        if self._listeners is not None:
            self._listeners.remove_file()

    def hand_on(self) -> None:
        """The process executes itself anew."""
        if self._notifier is not None:
            self._notifier.restore_environment()

    def kept(self) -> None:
        """It could not."""
        if self._notifier is not None:
            self._notifier.take_environment()

    def _up(self) -> int:
        return sum(place.state == "up" for place in self._places)

    def _tell(self, notifier: Notifier, renewing: bool) -> None:
        places, now = self._places, time.monotonic()
        if self._end is None:
            # Also where a worker fails again and again: the others work, and systemd must not end them for it.
            if not self._told_ready and not renewing and all(place.state != "starting" for place in places):
                self._told_ready = True
                notifier.send("READY=1")
            lines = [f"STATUS={self._up()} of {len(places)} workers take jobs"]
        else:
            left = self._end.left()
            lines = [f"STATUS=stopping, {len(places)} workers left, {left:.0f} s left"]
            lines.append(f"EXTEND_TIMEOUT_USEC={int(left * 1e6)}")
            if not self._told_stopping:
                self._told_stopping = True
                lines.insert(0, "STOPPING=1")
        if lines[0] != self._said or self._end is not None:
            self._said = lines[0]
            notifier.send(*lines)
        # systemd ends its watchdog with STOPPING=1, and a keep-alive that came later would wind it up again.
        if self._end is None and notifier.ping_seconds and now >= self._ping_at:
            self._ping_at = now + notifier.ping_seconds
            notifier.send("WATCHDOG=1")
