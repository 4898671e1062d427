"""Waiting for the horse's end, and keeping it to the limits of a shutdown meanwhile."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rq.timeouts import HorseMonitorTimeoutException
from rq.worker import BaseWorker

from graceful import memory
from graceful.worker.cluster.membership import Membership
from graceful.worker.compat import rq_private
from graceful.worker.horse.current_job import CurrentJob
from graceful.worker.horse.memory_watch import MemoryWatch
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.os_signals import Inbox

LOOK_SECONDS = 1.0
"""So often it looks for what nobody wakes it for."""
KILLED_SECONDS = 0.2
"""And so often once the horse was killed."""


class HorseMonitor:
    """Watches one worker's horses, one after the other.

    Args:
        worker: the worker.
        coordinator: keeps the job in flight to its limits.
        membership: sends the worker's heartbeat.
        inbox: wakes it from its waiting: SIGCHLD does so too.
        memory_watch: fails the job if it needs too much memory.
    """

    def __init__(
        self,
        worker: BaseWorker,
        coordinator: Coordinator,
        membership: Membership,
        inbox: Inbox,
        memory_watch: MemoryWatch,
    ) -> None:
        self._worker = worker
        self._coordinator = coordinator
        self._membership = membership
        self._inbox = inbox
        self._memory_watch = memory_watch

    def wait(self, current: CurrentJob) -> tuple[int | None, int | None, Any]:
        """As RQ's ``Worker.wait_for_horse``.

        Args:
            current: the horse's job.

        Returns:
            as RQ's: pid, status, resource usage. The status is 0 for a job that the shutdown ended, or that was
            killed for its memory, since RQ's failure path is not for it.

        Raises:
            HorseMonitorTimeoutException: it is time for a heartbeat. RQ raises it out of an alarm
                (``Worker.monitor_work_horse``), which could lose the status of a horse that ends at that instant.
        """
        if not self._worker.horse_pid:
            return None, None, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        heartbeat_at = time.monotonic() + self._worker.job_monitoring_interval
        while True:
            try:
                pid, status, usage = os.wait4(self._worker.horse_pid, os.WNOHANG)
            except ChildProcessError:
                return None, None, None
            if pid:
                rq_private.set_horse_pid(self._worker, 0)
                current.horse_ended(status, memory.peak(usage))
                ours = current.killed_for_memory or not current.own_end(self._coordinator.state.killed)
                return pid, 0 if ours else status, usage
            if time.monotonic() >= heartbeat_at:
                raise HorseMonitorTimeoutException("time for a heartbeat")
            state = self._coordinator.attend(current.record)
            self._memory_watch.look(current)
            now = time.monotonic()
            seconds = KILLED_SECONDS if state.killed else state.seconds_to_next_limit(now)
            self._membership.beat()
            look = LOOK_SECONDS if self._memory_watch.seconds is None else self._memory_watch.seconds
            self._inbox.wait(max(0.0, min(look if seconds is None else seconds, look, heartbeat_at - now)))

    def see_out(self, current: CurrentJob) -> None:
        """Wait for a horse that an error left alone: no exit hook runs, and no job is requeued, while it lives."""
        while self._worker.horse_pid:
            try:
                self.wait(current)
                rq_private.set_horse_pid(self._worker, 0)
            except HorseMonitorTimeoutException:
                continue
