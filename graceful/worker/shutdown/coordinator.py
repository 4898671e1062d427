"""The one owner of a shutdown's state: events come in from any thread, effects go out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from graceful.core.deadline import Deadline
from graceful.core.events import Effect, Event, JobDescribed, QuietAsked, ResumeAsked, StacksAsked, StopAsked, Tick
from graceful.core.phases import Reason
from graceful.core.records import InFlightJob
from graceful.core.shutdown import State, step
from graceful.worker.shutdown.os_signals import (
    QUIET_COMMAND,
    QUIET_SIGNAL,
    RESUME_COMMAND,
    SHUTDOWN_COMMAND,
    STACKS_SIGNAL,
    Inbox,
    Received,
)

log = logging.getLogger("graceful.worker")
EFFECT_FAILED = "Shutdown: the step %s failed"


class Effects(Protocol):
    """Carries out what the state machine decides."""

    def carry_out(self, effect: Effect, coordinator: Coordinator) -> None:
        """Do it, in the thread that sent the event; never called under the coordinator's lock."""


class Coordinator:
    """Feeds events to the state machine and has its effects carried out.

    The main thread, the stall guard, the guardian and the threads of a simple worker may all send events. The lock is
    held for the step alone, which is pure, so nobody waits for anybody's I/O.

    Args:
        state: the shutdown's state at the worker's start.
        inbox: what was asked of the worker from outside.
        effects: what carries the effects out.
    """

    def __init__(self, state: State, inbox: Inbox, effects: Effects) -> None:
        self._state = state
        self._inbox = inbox
        self._effects = effects
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """The state as it is now; it is frozen, and a later event makes another."""
        return self._state

    @property
    def stopping(self) -> bool:
        return self._state.stopping

    def end(self) -> Deadline:
        """When the process has to be over; with nobody asking for it, a grace period from now."""
        return self._state.end(time.monotonic())

    def attend(self, job: InFlightJob | None = None) -> State:
        """Take in what was asked for since the last time, and keep the job in flight to its limits.

        Args:
            job: the job in flight, with what its process has told of it by now.
        """
        described = [] if job is None or job == self._state.job else [JobDescribed(job)]
        return self._step(lambda: [*described, *self._unread()])

    def send(self, event: Event) -> State:
        """Something happened.

        Returns:
            the state after it, once all that follows from the event is done. An effect that fails is logged, and
            keeps neither the others nor the worker's loop.
        """
        return self._step(lambda: [event])

    def _step(self, events: Callable[[], list[Event]]) -> State:
        todo: list[Effect] = []
        with self._lock:
            now = time.monotonic()
            for event in events():
                self._state, effects = step(self._state, event, now)
                todo += effects
        # Telling comes last: a log that nobody reads must not keep the end from being guarded, or the job its limits.
        failed: list[tuple[Effect, Exception]] = []
        for effect in sorted(todo, key=lambda each: each.logs):
            try:
                self._effects.carry_out(effect, self)
            except Exception as error:
                failed.append((effect, error))
        for effect, cause in failed:
            log.error(EFFECT_FAILED, effect.name, exc_info=cause)
        return self._state

    def _unread(self) -> list[Event]:
        events: list[Event] = []
        while (received := self._inbox.next()) is not None:
            events.append(event_of(received))
        return [*events, Tick()]


def event_of(received: Received) -> Event:
    """What a signal or a command means."""
    if received.name in (QUIET_SIGNAL.name, QUIET_COMMAND):
        return QuietAsked()
    if received.name == RESUME_COMMAND:
        return ResumeAsked()
    if received.name == STACKS_SIGNAL.name:
        return StacksAsked()
    if received.name == SHUTDOWN_COMMAND:
        return StopAsked(received.at, Reason.COMMAND)
    return StopAsked(received.at, Reason.SIGNAL, received.name)
