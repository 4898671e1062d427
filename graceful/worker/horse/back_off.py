"""Waiting between jobs while their horses cannot begin, for instance for want of a Redis connection."""

from __future__ import annotations

import logging

from graceful.core.deadline import Deadline
from graceful.worker.cluster.membership import Membership
from graceful.worker.horse.monitor import LOOK_SECONDS
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.os_signals import Inbox

log = logging.getLogger("graceful.worker")
CANNOT_START = "Worker %s: the work horse could not begin, %d times in a row; next job in %.1f s"
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 16.0
"""How long a worker waits for the next job when a horse could not begin, at first and at most; it doubles each time."""


class BackOff:
    """Counts horses that could not begin, and waits longer each time.

    Args:
        name: the worker's name.
        coordinator: a stop ends the wait.
        membership: the worker sends its heartbeat meanwhile.
        inbox: wakes the wait at a signal.
    """

    def __init__(self, name: str, coordinator: Coordinator, membership: Membership, inbox: Inbox) -> None:
        self._name = name
        self._coordinator = coordinator
        self._membership = membership
        self._inbox = inbox
        self.failed_starts = 0
        """How many horses in a row could not begin."""

    def count(self, unstarted: bool) -> int:
        """Take in whether the last horse could not begin; returns how many in a row."""
        self.failed_starts = self.failed_starts + 1 if unstarted else 0
        return self.failed_starts

    def wait(self) -> None:
        """Wait before the next job."""
        seconds = min(FIRST_WAIT_SECONDS * 2 ** (self.failed_starts - 1), LONGEST_WAIT_SECONDS)
        log.warning(CANNOT_START, self._name, self.failed_starts, seconds)
        until = Deadline.after(seconds)
        while not self._coordinator.attend().stopping and not until.expired:
            self._membership.beat()
            self._inbox.wait(min(until.left(), LOOK_SECONDS))
