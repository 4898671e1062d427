"""A worker's part in the cluster: it sends its heartbeat, and looks after those whose heartbeat is overdue."""

from __future__ import annotations

import logging
import time

from redis.exceptions import RedisError

from graceful.worker.cluster.heartbeat import HEARTBEAT_SECONDS, Heartbeat
from graceful.worker.cluster.reaper import Reaper
from graceful.worker.shutdown.coordinator import Coordinator

log = logging.getLogger("graceful.worker")
NOT_SENT = "Worker %s: no heartbeat, Redis is unreachable: %s"
STOPPING_SECONDS = 1.0
"""Between two heartbeats once the shutdown has begun: a worker that is about to end must not count as dead."""


class Membership:
    """One worker's membership.

    Args:
        name: the worker's name.
        heartbeat: its entries in Redis.
        reaper: looks after the dead in its name.
        coordinator: a worker that stops looks after nobody any more.
    """

    def __init__(self, name: str, heartbeat: Heartbeat, reaper: Reaper, coordinator: Coordinator) -> None:
        self.heartbeat = heartbeat
        self.reaper = reaper
        self._name = name
        self._coordinator = coordinator
        self._beat_at = 0.0

    def beat(self) -> None:
        """Send the heartbeat if it is due, and look after the dead. Never raises a ``RedisError``."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        stopping = self._coordinator.stopping
        self._beat_at = now + (STOPPING_SECONDS if stopping else HEARTBEAT_SECONDS)
        try:
            heard = self.heartbeat.beat()
            if not stopping:
                self.reaper.reap(heard)
        except RedisError as error:
            log.warning(NOT_SENT, self._name, error)
