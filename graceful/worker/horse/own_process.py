"""A worker that runs jobs in its own process: a second thread sees to the shutdown while a job has the main thread."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from graceful.jobs import interruption
from graceful.jobs.shared_memory import Verdict
from graceful.worker.at_work import at_work
from graceful.worker.horse import run
from graceful.worker.horse.monitor import LOOK_SECONDS
from graceful.worker.horse.supervisor import Supervisor
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.exit import Standby, leave
from graceful.worker.worker import GracefulMixin

log = logging.getLogger("graceful.worker")
DONE = frozenset({Verdict.FINISHED, Verdict.FAILED})
HOOKS_PATIENCE = 0.2
"""Seconds for the horse exit hooks to come to their end."""


class SimpleMixin(GracefulMixin):
    """:class:`GracefulMixin` for worker classes without a horse.

    A job that does not end by the hard limit cannot be killed alone. Its fate is then decided under a lock: either its
    result is being stored, and that is waited for, or the process ends with the job in its hands. The supervisor
    (:mod:`graceful.worker.horse.supervisor`) puts it back, and is there too for a job that holds the GIL all the time.
    """

    runs_jobs_itself = True
    _supervisor: Supervisor | None = None
    _attendant: Standby | None = None
    _beating: Standby | None = None
    _fate: threading.RLock | None = None

    @at_work
    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """As RQ's; the supervisor is forked before there is any thread."""
        self._supervisor = Supervisor(
            self._inbox, self._memory, self._settings.timeout, lambda: self._reaper.close(self.life)
        )
        # For all jobs: at the limit of threads a job could have none of its own, and no attendant.
        self._attendant, self._beating = Standby("graceful-attendant"), Standby("graceful-beat")
        super().bootstrap(logging_level, date_format, log_format)

    def _conclude(self, worked: bool) -> bool:
        try:
            return super()._conclude(worked)
        finally:
            self._part()

    def _part(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.dismiss()
        for thread in (self._attendant, self._beating):
            if thread is not None:
                thread.dismiss()

    @at_work
    def perform_job(self, job: Job, queue: Queue, *execution: Execution) -> bool:
        """As RQ's, with the attendant thread beside it."""
        if self.elsewhere:
            return super().perform_job(job, queue, *execution)
        self._fate = threading.RLock()
        with self._attended():
            return bool(super().perform_job(job, queue, *execution))

    @at_work
    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        with self._deciding():
            super().prepare_job_execution(job, remove_from_intermediate_queue)

    @at_work
    def handle_job_success(self, *args: Any, **kwargs: Any) -> None:
        with self._deciding(Verdict.FINISHED):
            super().handle_job_success(*args, **kwargs)

    @at_work
    def handle_job_retry(self, *args: Any, **kwargs: Any) -> None:
        with self._deciding(Verdict.FINISHED):
            super().handle_job_retry(*args, **kwargs)

    @at_work
    def handle_job_failure(self, *args: Any, **kwargs: Any) -> None:
        with self._deciding():
            super().handle_job_failure(*args, **kwargs)

    @contextmanager
    def _deciding(self, verdict: Verdict | None = None) -> Iterator[None]:
        """Decide the fate of the job in hand; others, in threads or failed by RQ's maintenance, are left to RQ."""
        if self.elsewhere or self._fate is None:
            yield
            return
        with self._fate:
            yield
            if verdict is not None:
                self._memory.verdict = verdict

    @contextmanager
    def _attended(self) -> Iterator[None]:
        over = threading.Event()
        old = signal.signal(os_signals.INTERRUPT_SIGNAL, run.interrupt)
        assert self._attendant is not None
        assert self._beating is not None
        attended = self._attendant.do(lambda: self._attend_job(over))
        # Not the attendant's: a Redis that does not answer would keep it from the shutdown.
        self._beating.do(lambda: self._beat_until(over))
        try:
            yield
        finally:
            over.set()
            self._inbox.wake()
            attended.wait()
            signal.signal(os_signals.INTERRUPT_SIGNAL, old)

    def _attend_job(self, over: threading.Event) -> None:
        assert self._fate is not None
        while not over.is_set():
            self.attend()
            limits = self._drain.limits
            seconds = LOOK_SECONDS
            if limits is not None and limits.hard.expired:
                # A job that is done only has its horse exit hooks to run, which end at the hard limit themselves.
                done = self._memory.verdict is not Verdict.NONE
                if limits.hard.earlier(-HOOKS_PATIENCE if done else 0).expired and self._fate.acquire(blocking=False):
                    self._give_up(over)
                seconds = 0.05
            elif limits is not None and limits.soft.expired:
                if not self._memory.interrupt:
                    log.warning("Worker %s: no time left for the job, interrupting it", self.name)
                    self._memory.interrupt = True
                    signal.pthread_kill(threading.main_thread().ident or 0, os_signals.INTERRUPT_SIGNAL)
                seconds = limits.hard.left()
            elif limits is not None:
                seconds = limits.soft.left()
            self._inbox.wait(min(LOOK_SECONDS, seconds))

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            self._beat()

    def _give_up(self, over: threading.Event) -> None:
        """The job holds the main thread and does not let go of it: end the worker from here.

        As long as this process lives the job goes on, so it stays in our hands: the supervisor puts it back.
        """
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        guard = interruption.guard
        if guard is not None:  # Else only a horse exit hook hangs, and there may be the stack of an interruption.
            self._memory.write_stack(guard.stack_of_job(frame))
        assert self._current_job is not None
        log.warning("Worker %s: the job did not end, ending the worker", self.name)
        over.set()  # No beat any more that would register this worker anew.
        if self._memory.verdict not in DONE:
            self._current_job.end_with_us()
        self._account(self._current_job)
        self.teardown()
        leave(self._ending.run(lambda: self._current_job is None and self._requeue_leftover()), self.seconds_left)
