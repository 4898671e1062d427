"""The methods of RQ's worker that run beside the job: in the horse, or in a worker that runs jobs itself."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import redis
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful import conf
from graceful.jobs.shared_memory import SharedMemory
from graceful.worker.at_work import at_work
from graceful.worker.compat import rq_private
from graceful.worker.horse import run
from graceful.worker.queue.requeue import HeldJob

if TYPE_CHECKING:
    from graceful.worker.session import Session


class HorseSide(BaseWorker):
    """One half of :class:`graceful.worker.worker.GracefulMixin`; the other half runs in the worker."""

    worker_id: str
    """Id of the worker's report: under it the job is held."""
    runs_jobs_itself = False
    """Whether jobs run in the worker's own process (SimpleWorker) instead of a horse's."""
    is_at_work = False
    """Whether this object is a worker inside ``work()``, or its horse; see :func:`graceful.worker.at_work.at_work`."""
    _memory: SharedMemory | None = None
    _session: Session | None = None

    def join(self, worker_id: str, memory: SharedMemory) -> None:
        """In a horse: which start of the worker it belongs to, and the memory that they share."""
        self.worker_id = worker_id
        self._memory = memory
        self.is_at_work = True

    @property
    def elsewhere(self) -> bool:
        """Whether this is neither a horse nor a worker's main thread without one: a thread of the worker's class."""
        assert self._memory is not None
        if os.getpid() != self._memory.worker_pid:
            return False
        return not self.runs_jobs_itself or threading.current_thread() is not threading.main_thread()

    @at_work
    def setup_work_horse_signals(self) -> None:
        """As RQ's, then ours: a SIGTERM to the group or to the horse itself harms no job."""
        super().setup_work_horse_signals()
        assert self._memory is not None
        run.settle(self._memory)

    @at_work
    def perform_job(self, job: Job, queue: Queue, *execution: Any) -> bool:
        """As RQ's; interruptible, and with horse exit hooks at the end."""
        if self.elsewhere:
            assert self._session is not None
            with self._session.thread_jobs.running(job, queue) as came_to:
                finished = bool(super().perform_job(job, queue, *execution))
                came_to(finished)
            return finished
        assert self._memory is not None
        return run.perform(
            self._memory,
            self.connection,
            HeldJob(self.worker_id, job.id, job.origin, queue.key, self.execution),
            job,
            lambda: bool(super(HorseSide, self).perform_job(job, queue, *execution)),
            conf.settings(),
            self.name,
        )

    @at_work
    def handle_execution_ended(self, *args: Any, **kwargs: Any) -> None:
        """RQ's first step after the job, on its way to success as to failure: not taken by an interrupted job."""
        if not self.elsewhere:
            run.end()
        super().handle_execution_ended(*args, **kwargs)

    @at_work
    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """As RQ's; before it can enqueue the job again (``Repeat``), the cursors of this run go.

        A success whose reply alone was lost is none the less one, and does not become a failure. Where Redis cannot be
        asked for it either, the worker does that, and requeues the job if it has not finished.
        """
        # RQ 2.x has it as an attribute, RQ 3 as an argument.
        execution = kwargs.get("execution", self.execution)
        if not self.elsewhere:
            run.forget_cursors()
        try:
            super().handle_job_success(job, *args, **kwargs)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            try:
                over = rq_private.is_over(job, execution)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                if not self.elsewhere:
                    run.leave_to_worker()
                raise
            if not over:
                raise
