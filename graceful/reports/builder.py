"""The shutdown report as a projection of the shutdown's state: nothing is kept in it that does not stand there."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from graceful.core.deadline import Deadline
from graceful.core.phases import Reason
from graceful.core.records import Shutdown, ShutdownReport, Spans, utc_now
from graceful.core.shutdown import State


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the monotonic clock stood when the wall clock showed what.

    Spans are measured by the monotonic clock, so that a wall clock that is set meanwhile does not make a drain of
    minus two hours; instants are shown by the wall clock.
    """

    monotonic: float = field(default_factory=time.monotonic)
    wall: datetime = field(default_factory=utc_now)

    def at(self, instant: float) -> datetime:
        """The wall clock's time at a monotonic instant."""
        return self.wall + timedelta(seconds=instant - self.monotonic)


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Which worker a report is of.

    Args:
        worker: the worker's name.
        queues: names of its queues.
        worker_class: dotted path of its class.
        release: label of the running release.
    """

    worker: str
    queues: tuple[str, ...]
    worker_class: str
    release: str = ""
    life: str = field(default_factory=lambda: uuid4().hex)
    hostname: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


def report_of(state: State, worker: WorkerIdentity, started: Clock, requested: Clock) -> ShutdownReport:
    """The report as it stands.

    Args:
        state: the state of the shutdown.
        worker: whose report it is.
        started: the clocks when the worker started.
        requested: the clocks when the shutdown was requested, or as ``started``.
    """
    requested_at = state.stops[0] if state.stops else None
    # A signal that came before the worker was ready for it.
    shown = [max(each, started.at(state.started_at)) for each in map(requested.at, _instants(state))]
    known = dict(zip(_names(state), shown, strict=True))
    return ShutdownReport(
        id=worker.life,
        worker=worker.worker,
        hostname=worker.hostname,
        pid=worker.pid,
        queues=worker.queues,
        worker_class=worker.worker_class,
        release=worker.release,
        started_at=started.at(state.started_at),
        reason=state.reason,
        signal=state.signal,
        outcome=state.outcome,
        exit_code=state.exit_code,
        phase=state.phase,
        requested_at=known.get("requested"),
        drained_at=known.get("drained"),
        ended_at=known.get("ended"),
        seconds=Spans(
            drain=_between(requested_at, state.drained_at) if state.sealed else None,
            hooks=_between(state.drained_at, state.ended_at),
            total=_between(requested_at, state.ended_at),
        ),
        jobs=state.jobs,
        hooks=state.hooks,
        notes=state.forced or (f"running the exit hook {state.hook}" if state.hook else ""),
    )


def shutdown_of(state: State, worker: WorkerIdentity, deadline: Deadline) -> Shutdown:
    """What an exit hook is told of the shutdown; ``deadline`` is its own."""
    return Shutdown(
        reason=state.reason or Reason.ERROR,
        signal=state.signal,
        worker=worker.worker,
        queues=worker.queues,
        jobs=state.jobs,
        deadline=deadline,
    )
