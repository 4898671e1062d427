"""Waiting for the horse's end, and seeing to it that it keeps to the limits of a shutdown."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from rq.timeouts import HorseMonitorTimeoutException
from rq.worker import BaseWorker

from graceful.worker.compat import rq_private
from graceful.worker.horse.current_job import CurrentJob
from graceful.worker.shutdown.drain import Drain
from graceful.worker.shutdown.os_signals import Inbox

LOOK_SECONDS = 1.0
"""So often it looks for what nobody wakes it for."""


class HorseMonitor:
    """Watches one worker's horses, one after the other.

    Args:
        worker: the worker.
        drain: the limits, once there are any.
        inbox: wakes it from its waiting: SIGCHLD does so too.
        attend: acts upon what was asked for.
        beat: says every few seconds that the worker lives.
    """

    def __init__(
        self, worker: BaseWorker, drain: Drain, inbox: Inbox, attend: Callable[[], None], beat: Callable[[], None]
    ) -> None:
        self._worker = worker
        self._drain = drain
        self._inbox = inbox
        self._attend = attend
        self._beat = beat

    def wait(self, current_job: CurrentJob) -> tuple[int | None, int | None, Any]:
        """As RQ's ``Worker.wait_for_horse``.

        Args:
            current_job: the horse's job.

        Returns:
            as RQ's: pid, status, resource usage. The status is 0 for a job that the shutdown ended, since RQ's
            failure path is not for it.

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
                current_job.horse_status = status
                return pid, 0 if current_job.not_done else status, usage
            if time.monotonic() >= heartbeat_at:
                raise HorseMonitorTimeoutException("time for a heartbeat")
            self._attend()
            seconds = LOOK_SECONDS
            if self._drain.limits is not None:
                seconds = min(seconds, current_job.keep_to(self._drain.limits))
            self._beat()
            self._inbox.wait(max(0.0, min(seconds, heartbeat_at - time.monotonic())))

    def see_out(self, current_job: CurrentJob) -> None:
        """Wait for a horse that an error left alone: no exit hook runs, and no job goes back, while it lives."""
        while self._worker.horse_pid:
            try:
                self.wait(current_job)
                rq_private.set_horse_pid(self._worker, 0)
            except HorseMonitorTimeoutException:
                continue
