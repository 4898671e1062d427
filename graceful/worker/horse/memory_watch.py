"""Fails a job that needs too much memory, before the kernel kills it, or its worker with it.

The worker looks at the size of the job's process while it waits for it, and has ``JobMemoryExceeded`` raised in the job
as ``JobInterrupted`` is at a shutdown. RLIMIT_AS (setrlimit(2)) would need no looking, but it limits addresses and not
memory: thread stacks, mapped files and the arenas of malloc count in full, whether or not they are used, and what fails
then is the next allocation anywhere, with a ``MemoryError`` that says nothing, or an abort in C code.
"""

from __future__ import annotations

import logging

from rq.worker import BaseWorker

from graceful import memory
from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.text import one_line
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.memory import MEGABYTE
from graceful.worker.horse.current_job import CurrentJob
from graceful.worker.horse.process import JobProcess

log = logging.getLogger("graceful.worker")
EXCEEDED = "Worker %s: job %s has %d MB, above GRACEFUL_JOB_MEMORY of %d MB, failing it"
ABOVE_GROUP = "Worker %s: GRACEFUL_JOB_MEMORY of %d MB is not below what its control group allows, %d MB"
TOO_SMALL = (
    "Worker %s: GRACEFUL_JOB_MEMORY of %d MB is below the %d MB that a job's process has from the worker: each fails"
)
LOOK_SECONDS = 0.25
"""So often it looks; what a job allocates faster than that is found too late."""


class MemoryWatch:
    """Watches the jobs of one worker, one after the other.

    Args:
        worker: the worker.
        settings: without ``job_memory`` nothing is read.
        shared: the memory shared with the job's process, where that reads how much is too much.
        job_process: the process that jobs run in.
    """

    def __init__(self, worker: BaseWorker, settings: Settings, shared: SharedMemory, job_process: JobProcess) -> None:
        self._worker = worker
        self._limit = settings.job_memory
        self._patience = settings.interrupt_timeout
        self._shared = shared
        self._job_process = job_process
        self._before = 0
        self._kill_at: Deadline | None = None
        self.seconds = None if self._limit is None else LOOK_SECONDS
        """How often :meth:`look` is to be called; None if there is no need to."""

    def begin(self) -> None:
        """Before the first job: log what cannot work."""
        if self._limit is None:
            return
        now, group = memory.resident() or 0, memory.control_group_limit()
        if group is not None and self._limit * MEGABYTE >= group:
            log.warning(ABOVE_GROUP, self._worker.name, self._limit, group // MEGABYTE)
        if self._job_process.can_be_killed and now >= self._limit * MEGABYTE:
            log.warning(TOO_SMALL, self._worker.name, self._limit, now // MEGABYTE)

    def job_begins(self) -> None:
        """A job is about to begin; one in the worker's own process answers only for what that grows by."""
        self._kill_at = None
        self._before = 0
        if self._limit is not None and not self._job_process.can_be_killed:
            self._before = memory.resident() or 0

    def look(self, current: CurrentJob) -> None:
        """Have the job fail if it has too much; kill its process if it does not end for that.

        The worker's own process cannot be killed for a job: that one has to take notice.
        """
        if self._limit is None or self._shared.stage is Stage.STORING:
            return
        if self._kill_at is not None:
            if self._kill_at.expired and self._job_process.can_be_killed and not current.killed_for_memory:
                current.killed_for_memory = True
                self._job_process.kill(with_stacks=True)
            return
        size = memory.resident(self._worker.horse_pid or None)
        used = (size or 0) - self._before
        if used > self._limit * MEGABYTE:
            log.warning(EXCEEDED, self._worker.name, one_line(current.job.id), used // MEGABYTE, self._limit)
            self._shared.exceeded = (used, self._limit * MEGABYTE)
            self._kill_at = Deadline.after(self._patience)
            self._job_process.signal_job()
