"""Why a worker stops taking jobs: the loop that RQ's ``work()`` has, and each reason for its end."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from rq.exceptions import StopRequested

from graceful.core.events import LoopEnded
from graceful.core.phases import Reason
from graceful.worker.horse.back_off import BackOff
from graceful.worker.horse.thread_jobs import ThreadJobs
from graceful.worker.queue.dequeue import FOR_NOW
from graceful.worker.queue.fetch import release_job
from graceful.worker.recycling import Recycling
from graceful.worker.shutdown.coordinator import Coordinator

if TYPE_CHECKING:
    from graceful.worker.worker import GracefulMixin

log = logging.getLogger("graceful.worker")
DONE = "Worker %s: done, quitting"
IDLE = "Worker %s: idle for %d seconds, quitting"
MAX_JOBS = "Worker %s: finished executing %d jobs, quitting"
ENDED_BY_ERROR = "Worker %s: ended by an error"


class Loop:
    """Takes jobs and has them run, one after the other.

    Args:
        worker: the worker.
        worker_id: its id, under which it holds what it takes.
        coordinator: is told why the loop has ended.
        back_off: waits where horses cannot begin.
        thread_jobs: jobs that the worker's class has handed on to threads; the end waits for them.
        recycling: whether the worker has grown too large or too old.
    """

    def __init__(
        self,
        worker: GracefulMixin,
        worker_id: str,
        coordinator: Coordinator,
        back_off: BackOff,
        thread_jobs: ThreadJobs,
        recycling: Recycling,
    ) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._coordinator = coordinator
        self._back_off = back_off
        self._thread_jobs = thread_jobs
        self._recycling = recycling
        self.executed = 0
        """How many jobs came to an end."""
        self.taken_up = False
        """Whether the job in hand has come to the session, which sees to its end."""

    def run(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> None:
        """Take jobs until there is a reason to end, and tell the coordinator that. Never raises."""
        try:
            reason = self._take_jobs(burst, max_jobs, max_idle_time)
        except StopRequested:
            if self._coordinator.stopping:
                return
            # RQ's, where a burst finds the workers suspended; or that of a user's class.
            reason = Reason.BURST if burst else Reason.ERROR
        except BaseException as error:
            self.ended_by(error)
            return
        # A worker that ends by itself is in no hurry; the limits begin with the event.
        self._thread_jobs.wait()
        self._coordinator.send(LoopEnded(reason))

    def ended_by(self, error: BaseException) -> None:
        """An error ends the worker; a stop that leaves a user's own ``work()`` by ``StopRequested`` is none."""
        if isinstance(error, StopRequested) and self._coordinator.stopping:
            return
        self._coordinator.send(loop_ended_by(error))
        log.error(ENDED_BY_ERROR, self._worker.name, exc_info=error)

    def returned(self) -> None:
        """``work()`` has returned: a user's own loop does not say why it has ended."""
        if not self._coordinator.stopping:
            self._thread_jobs.wait()
            self._coordinator.send(LoopEnded(Reason.EXIT))

    def _take_jobs(self, burst: bool, max_jobs: int | None, max_idle_time: int | None) -> Reason:
        """As RQ's loop does (``BaseWorker.work``), until there is a reason to end."""
        worker = self._worker
        while True:
            worker.check_for_suspension(burst)
            if worker.should_run_maintenance_tasks:
                worker.run_maintenance_tasks()
            taken = worker.dequeue_job_and_maintain_ttl(None if burst else worker.dequeue_timeout, max_idle_time)
            if taken is None and (too_old := self._recycling.too_old()):
                return too_old
            if taken is None and burst:
                log.info(DONE, worker.name)
                return Reason.BURST
            if taken is None:
                log.info(IDLE, worker.name, max_idle_time or 0)
                return Reason.IDLE
            self.taken_up = False
            worker.execute_job(*taken)
            if not self.taken_up:
                # Not built on RQ's execute_job: what became of the job is left to the worker's class, as by RQ.
                job, queue = taken
                release_job(worker.connection, self._worker_id, job.id, queue.key)
            # RQ sends a heartbeat here; the look for a suspension that follows has one too.
            if self._back_off.failed_starts:
                self._back_off.wait()
                continue
            self.executed += 1
            if max_jobs is not None and self.executed >= max_jobs:
                log.info(MAX_JOBS, worker.name, self.executed)
                return Reason.MAX_JOBS
            if recycled := self._recycling.after_job():
                return recycled


def loop_ended_by(error: BaseException) -> LoopEnded:
    """What the coordinator is told of an error that ends the worker."""
    lost = isinstance(error, FOR_NOW)
    described = "ended by " + "".join(traceback.format_exception_only(error)).strip()
    return LoopEnded(Reason.REDIS_LOST if lost else Reason.ERROR, described)
