"""What can happen to one worker's shutdown, and what has to be done about it.

Events go into :func:`graceful.core.shutdown.step`, effects come out of it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from graceful.core.phases import Reason
from graceful.core.records import HookResult, InFlightJob


class StopAsked(NamedTuple):
    """A signal or RQ's shutdown command asks for the end, perhaps not for the first time."""

    at: float
    reason: Reason
    signal: str | None = None


class QuietAsked(NamedTuple):
    """SIGTSTP or the command of that name: take no new job."""


class ResumeAsked(NamedTuple):
    """Take jobs again."""


class StacksAsked(NamedTuple):
    """SIGTTIN: log where worker and job stand."""


class JobTaken(NamedTuple):
    """A job is in flight from here on."""

    job: InFlightJob


class JobDescribed(NamedTuple):
    """More is known of the job in flight: its function, once its process has unpickled it."""

    job: InFlightJob


class JobEnded(NamedTuple):
    """What became of a job: of the one in flight, or of one in a thread of the worker's own class.

    ``UNKNOWN`` where Redis could not be told: the job in flight is still held then.

    Args:
        job: the job, with its outcome.
        horse_peak: the most that its work horse had resident, in bytes; None if it had none.
    """

    job: InFlightJob
    horse_peak: int | None = None


class JobReleased(NamedTuple):
    """The job in flight is left to RQ: the worker's class runs it in a way of its own.

    Args:
        yielded: no, it is back in its queue by its own wish, and no matter of a shutdown that it met.
    """

    yielded: bool = False


class LoopEnded(NamedTuple):
    """The worker's loop has ended by itself, or an error has ended it, before or after a stop was asked for."""

    reason: Reason
    error: str = ""


class TornDown(NamedTuple):
    """No job runs any more, and RQ's own teardown is over.

    Args:
        holds_nothing: whether Redis has been told of every job that the worker had taken.
    """

    holds_nothing: bool = True


class HookStarted(NamedTuple):
    name: str


class HookEnded(NamedTuple):
    result: HookResult


class HooksOver(NamedTuple):
    """The last exit hook has ended."""


class Stalled(NamedTuple):
    """The main thread did not reach the end in time; ``where`` is its stack."""

    where: str


class Tick(NamedTuple):
    """Time has passed."""


Event = (
    StopAsked
    | QuietAsked
    | ResumeAsked
    | StacksAsked
    | JobTaken
    | JobDescribed
    | JobEnded
    | JobReleased
    | LoopEnded
    | TornDown
    | HookStarted
    | HookEnded
    | HooksOver
    | Stalled
    | Tick
)


class Effect(Enum):
    """What has to be done; what it needs to know stands in the state."""

    GUARD = auto()
    """See to it that the process is over by the end of the grace period."""
    ANNOUNCE = auto()
    """Tell the job in flight that the worker stops, and its limits."""
    BOUND_REDIS = auto()
    """Let no Redis command take long any more."""
    STOP_SCHEDULER = auto()
    """Tell RQ's scheduler process to end."""
    WRITE_JOURNAL = auto()
    """Write the report as it is now ahead."""
    REQUESTED = auto()
    """Log and signal that the shutdown was requested."""
    REPEATED = auto()
    """Log that a stop was asked for again."""
    QUIETED = auto()
    """Log that the worker takes no new job."""
    RESUMED = auto()
    """Log that it takes jobs again."""
    STACKS = auto()
    """Log the stacks of worker and job."""
    INTERRUPT = auto()
    """Raise JobInterrupted in the job in flight."""
    KILL = auto()
    """Kill the job in flight."""
    RUN_HOOKS = auto()
    """Run the exit hooks."""
    STORE = auto()
    """Store the sealed report."""
    EXIT = auto()
    """End the process from here: the main thread does not."""
    AWAIT_EXIT = auto()
    """Go no further: another thread stores the report of a forced end, and then ends the process."""

    @property
    def logs(self) -> bool:
        """Whether all that it does is to tell somebody: that may block for ever where nobody reads the log."""
        return self in (Effect.REQUESTED, Effect.REPEATED, Effect.QUIETED, Effect.RESUMED, Effect.STACKS)


Effects = tuple[Effect, ...]
