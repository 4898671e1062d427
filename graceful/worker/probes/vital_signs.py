"""Whether a worker is alive, and ready for jobs, and what it is at: for probes and for systemd's watchdog.

Nothing here takes a lock or waits for anybody; only :meth:`VitalSigns.status` asks Redis, and briefly.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rq.worker import WorkerStatus

from graceful.core.records import utc_now
from graceful.core.shutdown import State
from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS
from graceful.worker.compat.redis_connection import main_thread_waits
from graceful.worker.horse.progress_reader import ProgressReader
from graceful.worker.shutdown.os_signals import Inbox

if TYPE_CHECKING:
    from graceful.worker.worker import GracefulMixin

HUNG_SECONDS = float(OVERDUE_SECONDS)
"""A loop that is overdue for so long hangs. By then its heartbeat is overdue too, and its peers count it as dead."""
REDIS_SECONDS = 600.0
"""And so long where it waits for Redis, which no restart brings back; RQ's own timeout is 415 s
(``BaseWorker.connection_timeout``)."""
READY_SECONDS = 10.0
"""A loop that is overdue for so long takes no job at the moment."""
END_SECONDS = 5.0
"""A process that is still there so long after the end of its grace period has lost its guards."""
PROGRESS_SECONDS, PROGRESS_PAUSE = 0.3, 5.0


class VitalSigns:
    """What is known of one worker from its own process.

    Args:
        worker: the worker; its ``work()`` may not have begun yet.
        inbox: what it attends to.
    """

    def __init__(self, worker: GracefulMixin, inbox: Inbox) -> None:
        self._worker = worker
        self._inbox = inbox
        self._progress = ProgressReader(worker.connection, PROGRESS_SECONDS, PROGRESS_PAUSE)

    @property
    def state(self) -> State | None:
        return self._worker.shutdown_state

    def why_not_alive(self) -> str:
        """Why its process should be ended and started anew; empty where it should not.

        A worker that stops is alive: its end is bounded, and a restart could only cut the time of its job.
        """
        state, now = self.state, time.monotonic()
        if state is not None and state.limits is not None:
            late = now - state.limits.end.at
            return f"the process should have ended {late:.0f} s ago" if late > END_SECONDS else ""
        overdue = now - self._inbox.due_at
        if overdue <= HUNG_SECONDS or (overdue <= REDIS_SECONDS and main_thread_waits()):
            return ""
        return f"the worker's loop has given no sign of life for {overdue:.0f} s"

    def why_not_ready(self) -> str:
        """Why it takes no job now, or will take none after the one in flight; empty where it takes jobs."""
        state, session = self.state, self._worker._session
        if state is None:
            return "starting"
        if state.stopping:
            return "stopping"
        if state.quiet:
            return "quiet"
        if self._worker.get_state() not in (WorkerStatus.IDLE, WorkerStatus.BUSY):
            return "suspended" if self._worker.get_state() == WorkerStatus.SUSPENDED else "starting"
        if session is not None and session.dequeuer.redis_away:
            return "Redis is unreachable"
        overdue = time.monotonic() - self._inbox.due_at
        if overdue > READY_SECONDS:
            return f"the worker's loop has given no sign of life for {overdue:.0f} s"
        return ""

    def status(self) -> dict[str, Any]:
        """What it is at; no arguments of jobs, and nothing of what waits in its queues."""
        state, why = self.state, self.why_not_ready()
        job = None if state is None else state.job
        limits = None if state is None else state.limits
        found: dict[str, Any] = {
            "worker": self._worker.name,
            "phase": "starting" if state is None else state.phase.value,
            "alive": not self.why_not_alive(),
            "ready": not why,
            "not_ready": why,
            "job": None,
            "hook": "" if state is None else state.hook,
            "seconds_left": None if limits is None else round(max(0.0, limits.end.at - time.monotonic()), 1),
        }
        if job is not None:
            progress = self._progress.of(job)
            running = None if job.started_at is None else (utc_now() - job.started_at).total_seconds()
            found["job"] = {
                "id": job.id,
                "function": job.function,
                "queue": job.queue,
                "seconds": None if running is None else round(max(0.0, running), 1),
                "progress": None if progress is None else {"done": progress.done, "total": progress.total},
            }
        return found
