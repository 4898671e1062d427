"""A worker that runs jobs in its own process: a second thread sees to the shutdown while a job has the main thread."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue

from graceful.core.events import JobEnded
from graceful.jobs import interruption
from graceful.jobs.shared_memory import Verdict
from graceful.threads import Standby
from graceful.worker.at_work import at_work
from graceful.worker.horse import run
from graceful.worker.horse.monitor import LOOK_SECONDS
from graceful.worker.horse.process import OwnProcess
from graceful.worker.horse.supervisor import Supervisor
from graceful.worker.session import Session
from graceful.worker.shutdown.exit import leave
from graceful.worker.shutdown.os_signals import INTERRUPT_SIGNAL
from graceful.worker.worker import GracefulMixin

log = logging.getLogger("graceful.worker")
ENDING = "Worker %s: the job did not end, ending the worker"
HOOKS_PATIENCE = 0.2
"""Seconds for the horse exit hooks to come to their end."""
PAST_LIMIT_SECONDS = 0.05
"""So often it looks whether the process may be ended."""


class SimpleMixin(GracefulMixin):
    """:class:`GracefulMixin` for worker classes without a horse.

    A job that does not end by the hard limit cannot be killed alone. Its fate is then decided under a lock: either its
    result is being stored, and that is waited for, or the process ends with the job in it. The supervisor
    (:mod:`graceful.worker.horse.supervisor`) requeues it, and is there too for a job that holds the GIL all the time.
    """

    runs_jobs_itself = True
    _attendant: Attendant | None = None

    @at_work
    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """As RQ's; the supervisor is forked before there is any thread."""
        assert self._session is not None
        self._attendant = Attendant(self._session)
        super().bootstrap(logging_level, date_format, log_format)

    def _conclude(self, session: Session) -> int:
        try:
            return super()._conclude(session)
        finally:
            attendant, self._attendant = self._attendant, None
            if attendant is not None:
                attendant.dismiss()

    @at_work
    def perform_job(self, job: Job, queue: Queue, *execution: Execution) -> bool:
        """As RQ's, with the attendant thread beside it."""
        if self.elsewhere or self._attendant is None:
            return bool(super().perform_job(job, queue, *execution))
        with self._attendant.beside(self.teardown):
            return bool(super().perform_job(job, queue, *execution))

    @at_work
    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        with self._deciding():
            super().prepare_job_execution(job, remove_from_intermediate_queue)
        if self._attendant is not None:
            self._attendant.process.job_begins()

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
        """Decide the fate of the job in flight; others, in threads or failed by RQ's maintenance, are left to RQ."""
        if self.elsewhere or self._attendant is None or not self._attendant.busy:
            yield
            return
        with self._attendant.process.storing():
            yield
            if verdict is not None:
                assert self._memory is not None
                self._memory.verdict = verdict


class Attendant:
    """What sees to the shutdown beside a job: two threads, and the supervisor process.

    They are started with the worker, for all its jobs: at the limit of threads a job could have none of its own.

    Args:
        session: the worker's session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._supervisor = Supervisor(
            session.inbox, session.memory, session.settings.timeout, session.membership.reaper, session.worker_id
        )
        self._attending, self._beating = Standby("graceful-attendant"), Standby("graceful-heartbeat")
        assert isinstance(session.job_process, OwnProcess)
        self.process = session.job_process
        self.busy = False
        """Whether a job runs in the main thread."""

    def dismiss(self) -> None:
        """The worker has come to its end by itself."""
        self._supervisor.dismiss()
        self._attending.dismiss()
        self._beating.dismiss()

    @contextmanager
    def beside(self, teardown: Callable[[], None]) -> Iterator[None]:
        """Attend to the job that runs in this block.

        Args:
            teardown: the worker's, in case that the process has to end with the job in it.
        """
        over = threading.Event()
        old = signal.signal(INTERRUPT_SIGNAL, run.interrupt)
        self.busy = True
        self.process.job_begins()
        self._session.memory_watch.job_begins()
        attended = self._attending.do(lambda: self._attend(over, teardown))
        # Not the attending thread's: a Redis that does not answer would keep it from the shutdown.
        self._beating.do(lambda: self._beat(over))
        try:
            yield
        finally:
            over.set()
            self._session.inbox.wake()
            attended.wait()
            self.busy = False
            signal.signal(INTERRUPT_SIGNAL, old)
            # A job may have set its own and not put ours back, as asyncio's add_signal_handler() does.
            with contextlib.suppress(OSError, ValueError):  # It has closed every descriptor there is.
                self._session.inbox.install()

    def _attend(self, over: threading.Event, teardown: Callable[[], None]) -> None:
        session = self._session
        while not over.is_set():
            state = session.coordinator.attend(session.current.record if session.current else None)
            if session.current is not None:
                session.memory_watch.look(session.current)
            look = session.memory_watch.seconds
            seconds = LOOK_SECONDS if look is None else look
            if state.killed and state.limits is not None:
                # A job that is done only has its horse exit hooks to run, which end at the hard limit themselves.
                patience = HOOKS_PATIENCE if session.memory.verdict is not Verdict.NONE else 0
                if state.limits.hard.earlier(-patience).expired and self.process.end_with_job():
                    self._end(over, teardown)
                seconds = PAST_LIMIT_SECONDS
            elif state.limits is not None:
                limit = state.limits.hard if state.interrupt_sent else state.limits.soft
                seconds = min(seconds, limit.left())
            session.inbox.wait(seconds)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            self._session.membership.beat()

    def _end(self, over: threading.Event, teardown: Callable[[], None]) -> NoReturn:
        """The job holds the main thread and does not let go of it: end the worker from here.

        As long as this process lives the job goes on, so it stays held: the supervisor requeues it.
        """
        session = self._session
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        guard = interruption.guard
        if guard is not None:  # Else only a horse exit hook hangs, and there may be the stack of an interruption.
            session.memory.write_stack(guard.stack_of_job(frame))
        assert session.current is not None
        log.warning(ENDING, session.worker.name)
        over.set()  # No heartbeat any more that would register this worker anew.
        if session.memory.verdict in (Verdict.FINISHED, Verdict.FAILED):
            session.job_over(session.current)
        else:
            session.coordinator.send(JobEnded(session.current.left_behind()))
        teardown()
        code = session.conclude()
        self.process.store_late_end(session.coordinator.end().left() / 2)
        leave(code, session.coordinator.end().left())
