"""The shutdown as the worker's loop sees it: whether it was asked for, and until when what may go on."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.escalation import distinct, limits_of
from graceful.core.phases import Reason
from graceful.core.policy import Limits
from graceful.worker.shutdown.os_signals import STOP_SIGNALS, Received

COMMAND = "shutdown"
STOPS = frozenset({COMMAND, *(signum.name for signum in STOP_SIGNALS)})


@dataclass
class Drain:
    """What was asked of the worker so far.

    Args:
        settings: the settings that hold for it.
    """

    settings: Settings
    instants: list[float] = field(default_factory=list)
    limits: Limits | None = None
    reason: Reason | None = None
    signal: str | None = None
    quiet: bool = False

    @property
    def requested(self) -> bool:
        return self.limits is not None

    @property
    def counted(self) -> bool:
        """Whether the last request counts, or came so soon that it is one with that before it."""
        return bool(self.instants) and distinct(self.instants)[-1] == self.instants[-1]

    def ask(self, received: Received) -> bool:
        """A stop was asked for, perhaps not for the first time.

        Returns:
            True if this was the first time.
        """
        command = received.name == COMMAND
        return self.begin(
            received.at,
            Reason.COMMAND if command else Reason.SIGNAL,
            None if command else signal.Signals[received.name].name,
        )

    def begin(self, at: float, reason: Reason, signal_name: str | None = None) -> bool:
        """The worker has to come to its end, counted from the monotonic instant ``at``."""
        first = not self.instants
        if first:
            self.reason, self.signal = reason, signal_name
        self.instants.append(at)
        self.limits = limits_of(
            self.instants,
            timeout=self.settings.timeout,
            hooks_timeout=self.settings.hooks_timeout,
            interrupt_timeout=self.settings.interrupt_timeout,
        )
        return first

    def end(self) -> Deadline:
        """When the process has to be over; a worker that ends by itself has a grace period from now."""
        return self.limits.end if self.limits else Deadline.after(self.settings.timeout)
