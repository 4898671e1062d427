"""One run of a graceful worker, from its start to its exit code."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rq.exceptions import StopRequested
from rq.job import Job
from rq.queue import Queue

from graceful import signals
from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.events import JobEnded, JobReleased, JobTaken, TornDown
from graceful.core.limits import Budget
from graceful.core.outcome import INTERRUPTED
from graceful.core.phases import JobOutcome
from graceful.core.records import ShutdownReport
from graceful.core.shutdown import State
from graceful.jobs.shared_memory import SharedMemory, Verdict
from graceful.reports.builder import WorkerIdentity
from graceful.threads import bounded
from graceful.worker.cluster import rq_scheduler
from graceful.worker.cluster.deregister import deregister_from_rq
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.cluster.membership import Membership
from graceful.worker.cluster.reaper import Reaper
from graceful.worker.cluster.registration import Registration
from graceful.worker.compat import redis_connection, rq_private
from graceful.worker.compat.database import close_database_connections
from graceful.worker.compat.redis_connection import OwnConnection
from graceful.worker.horse.back_off import BackOff
from graceful.worker.horse.current_job import CurrentJob
from graceful.worker.horse.memory_watch import MemoryWatch
from graceful.worker.horse.monitor import HorseMonitor
from graceful.worker.horse.process import HorseProcess, OwnProcess
from graceful.worker.horse.thread_jobs import ThreadJobs
from graceful.worker.loop import Loop, loop_ended_by
from graceful.worker.queue.dequeue import Dequeuer
from graceful.worker.queue.requeue import HeldJob, Why, requeue
from graceful.worker.recycling import Recycling
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.effects import ShutdownEffects, redis_seconds
from graceful.worker.shutdown.journal_writer import JournalWriter
from graceful.worker.shutdown.os_signals import Inbox
from graceful.worker.shutdown.report import WorkerReport
from graceful.worker.shutdown.stall_guard import StallGuard

if TYPE_CHECKING:
    from graceful.worker.scale_in import ScaleIn
    from graceful.worker.worker import GracefulMixin

log = logging.getLogger("graceful.worker")
NOT_STARTED = "Worker %s: job %s was not started and has been requeued in %s (%s)"
TEARDOWN_FAILED = "Worker %s: RQ's teardown failed: %s"
NOT_ASKED = "Worker %s: Redis could not be asked what this worker still held: %s"

TEARDOWN_SECONDS = 1.5
SCALE_IN_SECONDS = 1.0
"""How long the idle hooks may hold up the exit hooks, counted from the end of RQ's teardown."""


class Session:
    """The parts of one worker's run, and the order in which they act.

    Args:
        worker: the worker.
        inbox: what is asked of it from outside.
        settings: the settings that hold for it.
    """

    def __init__(self, worker: GracefulMixin, inbox: Inbox, settings: Settings) -> None:
        self.worker = worker
        self.inbox = inbox
        self.settings = settings
        self.memory = SharedMemory()
        self.memory.worker_pid = os.getpid()
        connection, queues = worker.connection, tuple(worker.queue_names())
        redis_connection.know_driver(connection.connection_pool)
        # Of a class that make_graceful has made, the one that the user wrote.
        shown: type = getattr(worker, "graceful_over", None) or type(worker)
        path, pooled = f"{shown.__module__}.{shown.__qualname__}", rq_private.in_worker_pool()
        identity = WorkerIdentity(worker.name, queues, path, settings.release, pooled=pooled)
        self.worker_id = identity.worker_id
        heartbeat = Heartbeat(connection, Registration.here(self.worker_id, worker.name, queues))
        own = OwnConnection(connection)
        self.report = WorkerReport(identity, settings, JournalWriter(own, connection), heartbeat)
        self.job_process = (OwnProcess if worker.runs_jobs_itself else HorseProcess)(worker, self.memory)
        self.effects = ShutdownEffects(worker, settings, self.memory, self.job_process, self.report)
        budget = Budget(settings.timeout, settings.hooks_timeout, settings.interrupt_timeout)
        self.coordinator = Coordinator(State(budget, started_at=time.monotonic()), inbox, self.effects)
        reaper = Reaper(connection, f"worker {worker.name}", self.worker_id, settings, worker)
        self.membership = Membership(worker.name, heartbeat, reaper, self.coordinator)
        self.thread_jobs = ThreadJobs(self.coordinator, self.membership, inbox)
        self.back_off = BackOff(worker.name, self.coordinator, self.membership, inbox)
        self.recycling = Recycling(worker.name, settings)
        self.dequeuer = Dequeuer(
            worker, self.worker_id, settings, self.coordinator, self.membership, inbox, own, self.recycling
        )
        self.memory_watch = MemoryWatch(worker, settings, self.memory, self.job_process)
        self.monitor = HorseMonitor(worker, self.coordinator, self.membership, inbox, self.memory_watch)
        self.scale_in: ScaleIn | None = None
        self.current: CurrentJob | None = None
        self.loop = Loop(worker, self.worker_id, self.coordinator, self.back_off, self.thread_jobs, self.recycling)
        self._torn_down = True
        self._stall_guard: StallGuard | None = None

    def shutdown_report(self) -> ShutdownReport:
        """The report as it stands."""
        return self.report.of(self.coordinator.state)

    # The start.

    def start(self, register: Callable[[], None]) -> None:
        """Start: heartbeat and journal, then RQ's own; and see to those who died before us.

        Args:
            register: RQ's ``bootstrap``.
        """
        self.effects.prepare(self.coordinator)
        self._stall_guard = StallGuard(
            self.inbox, self.coordinator, redis_seconds(self.settings), job_process=self.job_process
        )
        heartbeat, reaper = self.membership.heartbeat, self.membership.reaper
        heartbeat.check_types()
        reaper.free_name(self.worker.name, self.report.worker.hostname, lambda: self.coordinator.stopping)
        # The heartbeat first: an entry in the journal of a worker that nobody knows would be closed by nobody.
        heard = heartbeat.beat()
        self.report.open(self.coordinator.state)
        self._torn_down = False
        register()
        # Not before RQ has registered us: a job that is failed for a dead worker is counted in our name.
        reaper.reap(heard)
        worker = self.report.worker
        self.recycling.begin()
        self.memory_watch.begin()
        if self.settings.busy_hooks or self.settings.idle_hooks:
            from graceful.worker.scale_in import ScaleIn  # Not at the cost of workers that have no such hooks: 2 ms.

            running = self.thread_jobs
            self.scale_in = ScaleIn(
                worker.name, worker.queues, self.settings, self.inbox, others_run=lambda: running.any_running
            )
            self.scale_in.start()
        signals.send(signals.worker_started, Session, worker=worker.name, queues=worker.queues, release=worker.release)

    # A job.

    def execute(self, job: Job, queue: Queue, run: Callable[[], None]) -> None:
        """Have one job run, and see to its end.

        Args:
            job: the job.
            queue: the queue that it came from.
            run: RQ's ``execute_job``, or a user's.

        Raises:
            StopRequested: a stop was asked for before the job was started; it is requeued.
        """
        worker, coordinator = self.worker, self.coordinator
        self.loop.taken_up = True
        if coordinator.attend().stopping:
            held = HeldJob(self.worker_id, job.id, job.origin, queue.key)
            given = requeue(worker.connection, held, Why.NOT_STARTED, self.settings)
            log.info(NOT_STARTED, worker.name, job.id, queue.name, given.found)
            raise StopRequested
        self.memory.reset()
        self.memory_watch.job_begins()
        self.current = current = CurrentJob(worker, self.worker_id, self.memory, self.settings, job, queue)
        coordinator.send(JobTaken(current.record))
        try:
            if not worker.runs_jobs_itself:
                close_database_connections()
            run()
            current.look(self.killed)
        except BaseException as error:
            current.cut_off = True
            if not worker.runs_jobs_itself and not worker.horse_pid and current.horse_status is None:
                self.memory.verdict = Verdict.UNSTARTED  # No horse could be forked.
            if worker.horse_pid:
                coordinator.send(loop_ended_by(error))  # The horse, which is waited for, is kept to limits.
            raise
        finally:
            self.monitor.see_out(current)
            self.job_over(current)

    def job_over(self, current: CurrentJob, until: Deadline | None = None) -> None:
        """Settle the job in flight; one that Redis could not be told about stays in flight."""
        if current.left_open:
            self.thread_jobs.handed_on()
            self.coordinator.send(JobReleased())
            self.current = None
            return
        record = current.end(self.killed, self.back_off.count(current.unstarted), until or self._patience())
        self.recycling.horse_peak = current.horse_peak or 0
        if current.yielded:
            self.coordinator.send(JobReleased(yielded=True))
            self.current = None
            return
        if self.coordinator.send(JobEnded(record, current.horse_peak)).job is None:
            self.current = None

    @property
    def killed(self) -> bool:
        """Whether the job in flight was killed at the hard limit."""
        return self.coordinator.state.killed and self.job_process.can_be_killed

    def _patience(self) -> Deadline:
        """Until when Redis may take to hear of a job that is requeued: half of the hooks' time is spared.

        The last try begins so early that it has its answer by then, or has given up waiting for one.
        """
        return self.coordinator.end().earlier(self.settings.hooks_timeout / 2 + redis_seconds(self.settings))

    # The end.

    def tear_down(self, teardown: Callable[[], None]) -> None:
        """RQ's teardown, within a bound: a Redis that does not answer must not eat the time of the hooks."""
        self.thread_jobs.wait()
        if self.scale_in is not None:
            self.scale_in.end()
        self.dequeuer.close()
        doing = bounded(teardown, min(TEARDOWN_SECONDS, self.coordinator.end().left() / 4))
        self._torn_down = doing.error is None
        if doing.error is not None:
            log.warning(TEARDOWN_FAILED, self.worker.name, doing.error)
        # A scheduler that was killed has left its locks and its own entry behind.
        self._torn_down &= rq_scheduler.stopped_by_itself(self.worker)

    def conclude(self) -> int:
        """Exit hooks, report, exit code.

        Returns:
            the exit code.
        """
        if self._stall_guard is not None:
            self._stall_guard.attend_alone()
        end = self.coordinator.end().cut_to(self.settings.hooks_timeout)
        leftover = bounded(self._requeue_leftover, end.left() / 8)
        if leftover.error is not None:
            log.warning(NOT_ASKED, self.worker.name, leftover.error)
        if self.scale_in is not None:
            self.scale_in.wait(min(SCALE_IN_SECONDS, end.left() / 4))
        # Only now that all are settled: no receiver can hold that up.
        for job in self.coordinator.state.jobs.in_flight:
            if job.outcome in INTERRUPTED and job.outcome is not JobOutcome.UNKNOWN:
                signals.send(signals.job_interrupted, Session, worker=self.worker.name, job=job)
        state = self.coordinator.send(TornDown(holds_nothing=bool(leftover.value)))
        if self._stall_guard is not None:
            self._stall_guard.dismiss()
        self.inbox.told_to_stop = bool(state.exit_code) or state.signal is not None
        return state.exit_code or 0

    def _requeue_leftover(self) -> bool:
        """Requeue what Redis could not be told about, or what a fetch took without our having heard of it.

        Returns:
            whether nothing is held any more.
        """
        if self.current is not None:
            if self.current.ends_with_process:
                return False
            self.job_over(self.current, until=Deadline.after(0))
            return self.current is None
        self.dequeuer.requeue_leftover()
        worker = self.worker
        # What ended the start may have been another worker of this name: then the entry is that one's.
        if not self._torn_down and worker.connection.hget(worker.key, "pid") in (None, str(os.getpid()).encode()):
            deregister_from_rq(worker.connection, self.membership.heartbeat.registration)
        return True
