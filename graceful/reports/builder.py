"""The shutdown report as a projection of the shutdown's state: it says nothing that does not stand there."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from graceful import memory
from graceful.core.deadline import Deadline
from graceful.core.phases import Reason
from graceful.core.records import Grace, PeakMemory, Shutdown, ShutdownReport, Spans, utc_now
from graceful.core.shutdown import State

QUIET = "quiet: takes no new job"
RUNNING_HOOK = "running the exit hook "
STOPPED_BY_POOL = (
    "stopped by its worker pool, which sends SIGINT whichever signal it was sent itself; or by Ctrl+C in its terminal"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """What the wall clock showed at an instant of the monotonic one.

    Spans are measured by the monotonic clock: a wall clock that is set during the drain does not make it last minus
    two hours. Instants are shown by the wall clock, counted from such a reading.
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
        name: the worker's name.
        queues: names of its queues.
        worker_class: dotted path of its class.
        release: label of the running release.
        worker_id: id of the report, different at each start.
        hostname: name of its machine.
        pid: its process.
        pooled: whether a worker pool of RQ has started it.
    """

    name: str
    queues: tuple[str, ...]
    worker_class: str
    release: str = ""
    worker_id: str = field(default_factory=lambda: uuid4().hex)
    hostname: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    pooled: bool = False

    def stopped_by_pool(self, signal: str | None) -> bool:
        """Whether it is the signal that a pool sends to its workers (``WorkerPool.stop_worker``, RQ 2.6.1 to 3.0)."""
        return self.pooled and signal == "SIGINT"


def report_of(state: State, worker: WorkerIdentity, started: Clock, requested: Clock) -> ShutdownReport:
    """The report as it stands.

    Args:
        state: the state of the shutdown.
        worker: whose report it is.
        started: a reading of the clocks at the worker's start.
        requested: a reading at the shutdown's beginning, from which its instants are counted.
    """
    asked_at = state.stops[0] if state.stops else None
    started_at = started.at(state.started_at)

    def shown(instant: float | None) -> datetime | None:
        return None if instant is None else max(started_at, requested.at(instant))

    pool = STOPPED_BY_POOL if worker.stopped_by_pool(state.signal) else ""
    quiet = QUIET if state.quiet and not state.stopping else ""
    running = f"{RUNNING_HOOK}{state.hook}" if state.hook else ""
    return ShutdownReport(
        id=worker.worker_id,
        worker=worker.name,
        hostname=worker.hostname,
        pid=worker.pid,
        queues=worker.queues,
        worker_class=worker.worker_class,
        release=worker.release,
        started_at=started_at,
        reason=state.reason,
        signal=state.signal,
        outcome=state.outcome,
        exit_code=state.exit_code,
        phase=state.phase,
        requested_at=shown(state.ended_at if asked_at is None else asked_at),
        drained_at=shown(state.drained_at),
        ended_at=shown(state.ended_at),
        seconds=Spans(
            drain=_between(asked_at, state.drained_at) if state.sealed else None,
            hooks=_between(state.drained_at, state.ended_at),
            total=_between(asked_at, state.ended_at),
        ),
        jobs=state.jobs,
        hooks=state.hooks,
        notes="\n".join(filter(None, (quiet, pool, state.error, state.forced or running))),
        grace=Grace(state.budget.timeout, state.budget.hooks, state.budget.interrupt),
        # Of a worker that is killed before, the entry that it opened at its start would say too little.
        peak=PeakMemory(memory.peak(), state.horse_peak) if state.stopping else PeakMemory(),
        quiet=state.quiet and not state.stopping,
    )


def shutdown_of(state: State, worker: WorkerIdentity, deadline: Deadline) -> Shutdown:
    """What an exit hook is told of the shutdown.

    Args:
        state: the state of the shutdown.
        worker: whose it is.
        deadline: the hook's own.
    """
    return Shutdown(
        reason=state.reason or Reason.ERROR,
        signal=state.signal,
        worker=worker.name,
        queues=worker.queues,
        jobs=state.jobs,
        deadline=deadline,
    )


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin)
