"""What RQ calls in a worker about its job in flight; in the horse it is :mod:`graceful.worker.horse.rq_methods`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from graceful.worker.at_work import at_work
from graceful.worker.cluster.membership import NOT_SENT
from graceful.worker.compat import rq_private
from graceful.worker.horse.process import kill
from graceful.worker.horse.rq_methods import HorseSide
from graceful.worker.queue.fetch import HELD_SECONDS
from graceful.worker.shutdown import os_signals

if TYPE_CHECKING:
    from graceful.worker.session import Session

log = logging.getLogger("graceful.worker")


class JobInFlight(HorseSide):
    """The part of :class:`graceful.worker.worker.GracefulMixin` that has to do with the job in flight."""

    _entries_last = False

    @at_work
    def prepare_execution(self, job: Job) -> Execution:
        """As RQ's; the execution is kept, so that it can be removed if the job is interrupted."""
        with self._lasting_entries():
            execution: Execution = super().prepare_execution(job)
        current = self._at_work.current
        if current is not None:  # None: a subclass of ours has an execute_job of its own.
            current.execution = execution
        return execution

    @at_work
    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """As RQ's; our fetch moves jobs to the intermediate queue however many queues the worker has."""
        super().prepare_job_execution(job, True)

    @at_work
    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """As RQ's, with signals held back until the horse has its own handlers."""
        with os_signals.blocked():
            super().fork_work_horse(job, queue)  # type: ignore[misc]
        if rq_private.stopped_by_user(self, job.id) or self._at_work.killed:
            self.kill_horse()  # The stop-job command, or the hard limit, came before there was a horse to kill.

    @at_work
    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """As RQ's; see :meth:`graceful.worker.horse.monitor.HorseMonitor.wait`.

        Raises:
            HorseMonitorTimeoutException: it is time for a heartbeat.
        """
        session = self._at_work
        if session.current is None:  # A subclass of ours has an execute_job of its own.
            return super().wait_for_horse()
        return session.monitor.wait(session.current)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """As RQ's, but never the worker's own process group; see :func:`graceful.worker.horse.process.kill`."""
        if not self.horse_pid:
            return
        if self.is_at_work:
            kill(self.horse_pid, sig)
        else:
            super().kill_horse(sig)

    @at_work
    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        """As RQ's; an unreachable Redis does not part the worker from its running job."""
        current = self._at_work.current
        try:
            with self._lasting_entries():
                super().maintain_heartbeats(*args, **kwargs)
            if current is not None and current.execution is not None:
                rq_private.remove_stray_execution(current.job, current.execution)
        except RedisError as error:
            log.warning(NOT_SENT, self.name, error)

    @contextmanager
    def _lasting_entries(self) -> Iterator[None]:
        """While it holds, RQ's entries of a job in flight are made to last as long as only we may fail it."""
        self._entries_last = True
        try:
            yield
        finally:
            self._entries_last = False

    @at_work
    def get_heartbeat_ttl(self, *args: Any, **kwargs: Any) -> int:
        """As RQ's; but the entries that say that a job is in flight outlive the worker by days.

        Any process that looks at the started registry fails the jobs whose entry has expired, 60 to 90 s after the
        worker's last heartbeat: RQ's maintenance, and django-rq's pages, statistics and Prometheus collector
        (``StartedJobRegistry.cleanup``). Whether the worker is dead is for our own heartbeat to say.
        """
        seconds = int(super().get_heartbeat_ttl(*args, **kwargs))
        return max(seconds, HELD_SECONDS) if self._entries_last else seconds

    @property
    def _at_work(self) -> Session:
        """The session; there is one wherever :func:`at_work` lets a method of ours be called."""
        assert self._session is not None
        return self._session
