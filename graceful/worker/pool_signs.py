"""What a pool's parent says of itself to probes and to systemd, from its own loop: who forks has no threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from graceful.worker.probes.listeners import Listeners
from graceful.worker.probes.server import ProbeServer
from graceful.worker.probes.systemd import Notifier

if TYPE_CHECKING:
    from graceful.worker.pool import Pool


class PoolSigns:
    """Answers probes, and tells systemd, whenever the parent's loop comes by.

    Args:
        pool: the pool.
        listeners: where probes are answered; None without.
        notifier: the way to systemd; None without.
    """

    def __init__(self, pool: Pool, listeners: Listeners | None, notifier: Notifier | None) -> None:
        self._pool = pool
        self._listeners = listeners
        self._server = None if listeners is None else ProbeServer(listeners.sockets, self)
        self._notifier = notifier
        self._ping_at = 0.0
        self._said = ""
        self._told_ready = self._told_stopping = False

    # For probes.

    def why_not_alive(self) -> str:
        """Never anything: a loop that hangs gives no answer at all."""
        return ""

    def why_not_ready(self) -> str:
        """Why no worker takes jobs; empty where one does."""
        if self._pool.end is not None:
            return "stopping"
        return "" if self._up() else "starting"

    def status(self) -> dict[str, Any]:
        """The workers by their places, and how long a stop may take yet."""
        pool, why = self._pool, self.why_not_ready()
        return {
            "pool": pool.name,
            "phase": "running" if pool.end is None else "stopping",
            "alive": True,
            "ready": not why,
            "not_ready": why,
            "workers": [
                {"number": place.number, "pid": place.pid or None, "state": place.state} for place in pool.places
            ],
            "seconds_left": None if pool.end is None else round(pool.end.left(), 1),
        }

    # The loop's.

    @property
    def awaited(self) -> list[Any]:
        """Sockets on which somebody may ask."""
        return [] if self._server is None else self._server.sockets

    @property
    def seconds(self) -> float:
        """Within which the loop has to come by."""
        return (self._notifier.ping_seconds if self._notifier else 0.0) or 1.0

    def come_by(self) -> None:
        """Answer who has asked; tell systemd what has changed."""
        if self._server is not None and self._pool.places:
            self._server.look(0.0)
        if self._notifier is not None:
            self._tell(self._notifier)

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
        return sum(place.state == "up" for place in self._pool.places)

    def _tell(self, notifier: Notifier) -> None:
        pool, up, now = self._pool, self._up(), time.monotonic()
        if pool.end is None:
            # Also where a worker fails again and again: the others work, and systemd must not end them for it.
            if not self._told_ready and not pool.renewing and all(place.state != "starting" for place in pool.places):
                self._told_ready = True
                notifier.send("READY=1")
            lines = [f"STATUS={up} of {len(pool.places)} workers take jobs"]
        else:
            left = pool.end.left()
            lines = [f"STATUS=stopping, {len(pool.places)} workers left, {left:.0f} s left"]
            lines.append(f"EXTEND_TIMEOUT_USEC={int(left * 1e6)}")
            if not self._told_stopping:
                self._told_stopping = True
                lines.insert(0, "STOPPING=1")
        if lines[0] != self._said or pool.end is not None:
            self._said = lines[0]
            notifier.send(*lines)
        # systemd ends its watchdog with STOPPING=1, and a keep-alive that came later would wind it up again.
        if pool.end is None and notifier.ping_seconds and now >= self._ping_at:
            self._ping_at = now + notifier.ping_seconds
            notifier.send("WATCHDOG=1")
