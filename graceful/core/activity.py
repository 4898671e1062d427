"""When a worker counts as busy or idle for those outside, and when they have to hear of it.

Pure, like the rest of this room. All instants are monotonic seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graceful.core.deadline import Deadline

RENEW_SECONDS = 300.0
"""How long a call for a busy worker holds: what it has set may expire, and has to be renewed before."""
RETRY_SECONDS = 30.0
"""After a call that did not succeed."""


@dataclass(frozen=True, slots=True)
class Activity:
    """The argument of a busy or idle hook.

    Args:
        busy: whether the worker has a job.
        worker: the worker's name.
        queues: names of the worker's queues.
        deadline: the instant by which this hook must be over.
    """

    busy: bool
    worker: str
    queues: tuple[str, ...]
    deadline: Deadline

    def time_left(self) -> float:
        """Seconds that this hook still has."""
        return self.deadline.left()


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of a worker's activity, and what was told of it.

    Args:
        idle_since: when its last job ended, or it started.
        working: whether it has a job now.
        ending: whether its last job is over.
        told: what was told last: True for busy, False for idle, None for nothing yet.
        told_at: when.
        succeeded: whether that reached whom it was meant for.
    """

    idle_since: float
    working: bool = False
    ending: bool = False
    told: bool | None = None
    told_at: float = -math.inf
    succeeded: bool = True


def next_call(pulse: Pulse, now: float, idle_after: float) -> tuple[bool | None, float]:
    """What has to be told now, and when to ask again.

    Busy is told at once, idle only after a while without a job: a worker between two jobs stays busy, and no
    sequence of jobs leads to more than one change to busy, and one to idle, in that time.

    Args:
        pulse: the worker's activity.
        now: the instant.
        idle_after: seconds without a job after which a worker counts as idle.

    Returns:
        True for busy, False for idle, None for nothing; and the seconds until this may change by itself.
    """
    if pulse.ending:
        open_ = pulse.told is True or (pulse.told is False and not pulse.succeeded)
        return (False if open_ else None), 0.0
    busy, until_idle = _state(pulse, now, idle_after)
    if busy is None:
        return None, until_idle
    if busy is not pulse.told:
        return busy, 0.0
    holds = RETRY_SECONDS if not pulse.succeeded else RENEW_SECONDS if busy else math.inf
    until_renewal = pulse.told_at + holds - now
    return (busy, 0.0) if until_renewal <= 0 else (None, min(until_idle, until_renewal))


def _state(pulse: Pulse, now: float, idle_after: float) -> tuple[bool | None, float]:
    """What the worker counts as, None while it has just started; and the seconds until that changes without a job."""
    if pulse.working:
        return True, math.inf
    until_idle = pulse.idle_since + idle_after - now
    if pulse.told is False or until_idle <= 0:
        return False, math.inf
    return pulse.told, until_idle
