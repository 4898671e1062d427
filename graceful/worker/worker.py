"""What makes an RQ worker class graceful. It overrides RQ's public methods, and leaves the work loop to RQ."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError
from rq.command import parse_payload
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.logutils import setup_loghandlers
from rq.queue import Queue

from graceful import conf
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome, Reason
from graceful.core.records import ShutdownReport
from graceful.exceptions import InvalidSettings
from graceful.hooks import registry
from graceful.jobs.shared_memory import SharedMemory, Stage, Verdict
from graceful.worker.at_work import at_work
from graceful.worker.cluster import rq_scheduler
from graceful.worker.cluster.deregister import forget
from graceful.worker.cluster.heartbeat import BEAT_SECONDS, Heartbeat, Registration
from graceful.worker.cluster.maintenance import run_maintenance
from graceful.worker.cluster.reaper import Reaper
from graceful.worker.compat import rq_private
from graceful.worker.horse import parent_death
from graceful.worker.horse.current_job import CurrentJob, kill
from graceful.worker.horse.monitor import LOOK_SECONDS, HorseMonitor
from graceful.worker.horse.rq_methods import HorseSide
from graceful.worker.horse.thread_jobs import ThreadJobs
from graceful.worker.queue.dequeue import Dequeuer
from graceful.worker.queue.fetch import HELD_SECONDS
from graceful.worker.queue.requeue import requeue
from graceful.worker.run import Run
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.attention import Attention, tight_seconds
from graceful.worker.shutdown.drain import Drain
from graceful.worker.shutdown.ending import Ending
from graceful.worker.shutdown.exit import bounded, close_database_connections
from graceful.worker.shutdown.journal_writer import JournalWriter
from graceful.worker.shutdown.lifetime import Lifetime
from graceful.worker.shutdown.stall_guard import StallGuard

log = logging.getLogger("graceful.worker")
TEARDOWN_SECONDS = 1.5
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 16.0
"""How long a worker waits for the next job when a horse could not begin, at first and at most; it doubles each time."""


class GracefulMixin(HorseSide):
    """Goes over an RQ worker class; see :func:`graceful.worker.make_graceful`.

    After :meth:`work` the attributes ``exit_code`` and ``report`` say how the shutdown went.
    """

    _stall_guard: StallGuard | None = None
    _entries_last = False
    grace_seconds: float | None = None
    """The grace period in seconds, in place of ``GRACEFUL_TIMEOUT``."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's ``work``, with the same arguments; then exit hooks and report.

        Raises:
            SystemExit: with the exit code (see the README), where that is not 0. 78: a setting is wrong, and nothing
                was started.
        """
        try:
            settings = conf.settings()
            if self.grace_seconds is not None:
                settings = settings.with_timeout(self.grace_seconds)
            registry.exit_hooks()
        except InvalidSettings as error:
            log.error("Worker %s: not started: %s", self.name, error)
            raise SystemExit(os.EX_CONFIG) from error
        bound = inspect.signature(super().work).bind(*args, **kwargs)
        # A class in between may take them as **kwargs, which would be one argument here.
        self._run = Run({**bound.arguments, **kwargs})
        # We count the jobs: RQ would count those too that could not be started.
        for options in (bound.arguments, bound.arguments.get("kwargs", {})):
            if "max_jobs" in options:
                options["max_jobs"] = None
        close_database_connections()
        with os_signals.capture() as inbox:
            self._assemble(inbox, settings)
            self.is_at_work = True
            worked = False
            try:
                worked = super().work(*bound.args, **bound.kwargs)
            except BaseException as error:
                self._run.note(error)
                log.exception("Worker %s: ended by an error", self.name)
            finally:
                self._dismiss_lookout()
            try:
                return self._conclude(worked)
            finally:
                self.is_at_work = False

    def _assemble(self, inbox: os_signals.Inbox, settings: conf.Settings) -> None:
        """The parts of one life of the worker, from its start to its report."""
        self._inbox = inbox
        self._settings = settings
        self._drain = Drain(settings)
        self._memory = SharedMemory()
        self._memory.worker_pid = os.getpid()
        queues = tuple(self.queue_names())
        # Of a class that make_graceful has made, the one that the user wrote.
        shown_class: type = getattr(self, "graceful_over", None) or type(self)
        self._lifetime = Lifetime(
            self.name,
            queues,
            f"{shown_class.__module__}.{shown_class.__qualname__}",
            settings,
            JournalWriter(self.connection),
        )
        self.life = self._lifetime.report.id
        self._heartbeat = Heartbeat(self.connection, Registration.here(self.life, self.name, queues))
        self._reaper = Reaper(self.connection, f"worker {self.name}", self.life, settings, self)
        self._elsewhere = ThreadJobs(self._drain, self._lifetime)
        self._ending = Ending(self._lifetime, self._drain, self._heartbeat, self.kill_horse_for_good)
        self._dequeuer = Dequeuer(self, self.life, self._drain, inbox, self.attend, self._beat)
        self._horse_monitor = HorseMonitor(self, self._drain, inbox, self.attend, self._beat)
        self._current_job: CurrentJob | None = None
        self._beat_at = 0.0
        self._not_started = 0
        self._torn_down = True
        self._attention = Attention(
            self,
            inbox,
            self._drain,
            settings,
            self._memory,
            self._lifetime,
            self._ending,
            lambda: self._current_job,
        )

    @property
    def exit_code(self) -> int | None:
        """The exit code that the shutdown came to; None before it."""
        return self.report.exit_code if self.report else None

    @property
    def seconds_left(self) -> float:
        """Seconds until the process has to be over; the whole grace period while nobody wants it to end."""
        return self._drain.end().left()

    @property
    def report(self) -> ShutdownReport | None:
        """The shutdown report, as far as it is known; None before :meth:`work`."""
        lifetime: Lifetime | None = getattr(self, "_lifetime", None)
        return lifetime.report if lifetime else None

    @at_work
    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """As RQ's; before it our entry in the journal, and the reports of those who died here without a word."""
        setup_loghandlers(logging_level, date_format, log_format, name="graceful")
        self._ending.prepare()
        self._stall_guard = StallGuard(
            self._inbox,
            self.attend,
            lambda: self._drain.requested,
            lambda: not self.runs_jobs_itself or self._current_job is None or self._memory.stage is Stage.STORING,
            tight_seconds(self._settings),
        )
        self._heartbeat.check_types()
        self._reaper.free_name(self.name, self._lifetime.report.hostname, lambda: self._drain.requested)
        # The beat first: a worker that is killed in between is known, and gets a report; an entry alone stays for ever.
        heard = self._heartbeat.beat()
        self._lifetime.open()
        self._torn_down = False
        super().bootstrap(logging_level, date_format, log_format)
        # Not before RQ has registered us: a job that is failed for a dead worker is counted in our name.
        self._reaper.look(heard)

    def _dismiss_lookout(self) -> None:
        stall_guard, self._stall_guard = self._stall_guard, None
        if stall_guard is not None:
            stall_guard.dismiss()

    def _beat(self) -> None:
        """Every few seconds: say that we live, look after those that do not."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + (BEAT_SECONDS if not self._drain.requested else LOOK_SECONDS)
        try:
            heard = self._heartbeat.beat()
            if not self._drain.requested:
                self._reaper.look(heard)
        except RedisError as error:
            log.warning("Worker %s: no beat, Redis is away: %s", self.name, error)

    # Signals and what follows from them.

    @at_work
    def _install_signal_handlers(self) -> None:
        """RQ's would do I/O in the handler; ours are installed by :func:`os_signals.capture`, around the loop."""

    @at_work
    def handle_payload(self, message: dict[str, Any]) -> None:
        """A command from RQ's memory, in the pubsub thread: ``shutdown`` is recorded like a signal."""
        if parse_payload(message).get("command") == "shutdown":
            self._inbox.record_command("shutdown")
        else:
            super().handle_payload(message)

    def attend(self) -> None:
        """Act upon what was asked for since the last time."""
        self._attention.attend()

    # Taking jobs.

    @at_work
    def check_for_suspension(self, burst: bool) -> None:
        """As RQ's, but a stop ends it at once; here the loop also ends when a stop was asked for."""
        with self._run.step():
            if self._run.full:
                log.info("Worker %s: finished executing %d jobs, quitting", self.name, self._run.executed)
                raise StopRequested
            self._dequeuer.hold_off(burst)

    @at_work
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """As RQ's: the next job and its queue, or None when the burst or the idle time is over.

        Raises:
            StopRequested: a stop was asked for.
        """
        with self._run.step():
            rq_scheduler.register(self, self._heartbeat)
            taken = self._dequeuer.next_job(timeout, max_idle_time)
            if taken is None:
                self._run.end_well()
            return taken

    @at_work
    def _start_scheduler(self, *args: Any, **kwargs: Any) -> None:
        """As RQ's; a scheduler whose worker is killed does not go on alone."""
        with parent_death.followed():
            super()._start_scheduler(*args, **kwargs)

    @at_work
    def run_maintenance_tasks(self) -> None:
        """As RQ's; also brings home the reports that wait in the journal or in the spool, and removes old ones."""
        try:
            with parent_death.followed():  # A scheduler that has ended is started again here.
                super().run_maintenance_tasks()
        except RedisError as error:
            log.warning("Worker %s: no maintenance, Redis is away: %s", self.name, error)
            return
        except Exception:
            # One job that nobody can read must not be the end of each worker that comes across it.
            log.exception("Worker %s: RQ's maintenance failed", self.name)
        run_maintenance(self.connection, self._settings)

    @at_work
    def execute_job(self, job: Job, queue: Queue) -> None:
        """As RQ's; a job that was taken after the stop was asked for goes back to the front of its queue.

        Raises:
            StopRequested: a stop was asked for before the job was started.
        """
        self.attend()
        if self._drain.requested:
            given = requeue(self, self.life, job, queue.key, None)
            log.info("Worker %s: job %s is back in %s (%s)", self.name, job.id, queue.name, given.found)
            raise StopRequested
        self._memory.reset()
        self._current_job = current_job = CurrentJob(self, self.life, self._memory, self._settings, job, queue)
        with self._run.noting():
            try:
                if not self.runs_jobs_itself:
                    close_database_connections()
                super().execute_job(job, queue)
                current_job.look()
            except BaseException:
                current_job.broken_off = True
                if not self.runs_jobs_itself and not self.horse_pid and current_job.horse_status is None:
                    self._memory.verdict = Verdict.UNSTARTED  # No horse could be forked.
                raise
            finally:
                if self.horse_pid:
                    if not self._drain.requested:
                        self._attention.stop(Reason.REDIS_LOST)
                    self._horse_monitor.see_out(current_job)
                if current_job.not_done:
                    self._not_started = self._not_started + 1 if current_job.unstarted else 0
                    current_job.requeue_or_fail(self._patience(), tries=self._not_started)
                self._account(current_job)
        if current_job.unstarted:
            self._back_off()
            return
        self._not_started = 0
        self._run.executed += 1

    def _back_off(self) -> None:
        """A horse could not begin, for instance for want of a Redis connection: wait, longer each time."""
        seconds = min(FIRST_WAIT_SECONDS * 2 ** (self._not_started - 1), LONGEST_WAIT_SECONDS)
        log.warning(
            "Worker %s: the work horse could not begin, %d times in a row; next job in %.1f s",
            self.name,
            self._not_started,
            seconds,
        )
        until = Deadline.after(seconds)
        while not self._drain.requested and not until.expired:
            self._beat()
            self._inbox.wait(min(until.left(), LOOK_SECONDS))
            self.attend()

    @at_work
    def prepare_execution(self, job: Job) -> Execution:
        """As RQ's; the execution is kept, so that it can be removed if the job is interrupted."""
        with self._lasting_entries():
            execution: Execution = super().prepare_execution(job)
        if self._current_job is not None:  # None: a subclass of ours has an execute_job of its own.
            self._current_job.execution = execution
        return execution

    @at_work
    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """As RQ's; our fetch moves jobs to the intermediate queue however many queues the worker has."""
        super().prepare_job_execution(job, True)

    def _account(self, current_job: CurrentJob) -> None:
        """Count the job that ended; a job that Redis could not be told of stays in hand."""
        if current_job.left_open:
            self._elsewhere.handed_on()
            self._current_job = None
            return
        current_job.settle()
        if current_job.record.outcome in (JobOutcome.FINISHED, JobOutcome.FAILED):
            self._lifetime.job_ended(current_job.record.outcome is JobOutcome.FINISHED)
        if self._drain.requested:
            self._meet(current_job)
        if current_job.record.outcome is not JobOutcome.UNKNOWN:
            self._current_job = None

    def _meet(self, current_job: CurrentJob) -> None:
        """Into the report: what became of the job that the shutdown met, and how long it went on."""
        current_job.record = replace(current_job.record, seconds=max(0.0, time.monotonic() - self._drain.instants[0]))
        self._lifetime.job_met(current_job.record)

    def _patience(self) -> Deadline:
        """Until when Redis may take to hear of a job that goes back: half of the hooks' time is spared.

        The last try begins so early that it has its answer by then, or has given up waiting for one.
        """
        return self._drain.end().earlier(self._settings.hooks_timeout / 2 + tight_seconds(self._settings))

    # The horse.

    @at_work
    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """As RQ's, with signals held back until the horse has its own handlers."""
        with os_signals.blocked():
            super().fork_work_horse(job, queue)  # type: ignore[misc]
        if rq_private.stopped_by_user(self, job.id):
            self.kill_horse()  # The stop-job command came before there was a horse to kill.

    @at_work
    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        """As RQ's; a Redis that is away does not part the worker from its running job."""
        try:
            with self._lasting_entries():
                super().maintain_heartbeats(*args, **kwargs)
            if self._current_job is not None and self._current_job.execution is not None:
                rq_private.remove_revenant(self._current_job.job, self._current_job.execution)
        except RedisError as error:
            log.warning("Worker %s: no heartbeat, Redis is away: %s", self.name, error)

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

    @at_work
    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """As RQ's; not sent any more once the worker is about to go."""
        # The horse has another life than the worker: it always sends, and only in pipelines.
        if pipeline is not None or self.is_horse:
            super().heartbeat(timeout, pipeline)
            return
        if self._drain.requested and self._current_job is None:
            return
        try:
            super().heartbeat(timeout)
        except RedisError as error:
            # RQ's loop would end the worker for it; the dequeue that follows waits for Redis to come back.
            log.warning("Worker %s: no heartbeat, Redis is away: %s", self.name, error)

    @at_work
    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """As RQ's; see :meth:`HorseMonitor.wait`.

        Raises:
            HorseMonitorTimeoutException: it is time for a heartbeat.
        """
        if self._current_job is None:  # A subclass of ours has an execute_job of its own.
            return super().wait_for_horse()
        return self._horse_monitor.wait(self._current_job)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """As RQ's, but never the worker's own process group; see :func:`graceful.worker.horse.current_job.kill`."""
        if self.horse_pid:
            kill(self.horse_pid, sig)

    def kill_horse_for_good(self) -> None:
        """Kill the horse if there is one; the last thing that a worker does to it."""
        self.kill_horse(signal.SIGKILL)

    # The end.

    @at_work
    def stop_scheduler(self) -> None:
        """As RQ's, without its unbounded wait; locks of a scheduler that had to be killed are released."""
        rq_scheduler.stop(self, self._drain.end().left() / 4)

    @at_work
    def unsubscribe(self) -> None:
        """As RQ's, in an order in which the thread sees that it has to stop before it is woken up."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(timeout=0.5)

    @at_work
    def teardown(self) -> None:
        """As RQ's, with a bound: a Redis that does not answer must not eat the time of the hooks."""
        if self.is_horse:
            return
        self._elsewhere.wait(self.attend, self._beat)
        self._dequeuer.close()
        doing = bounded(super().teardown, min(TEARDOWN_SECONDS, self._drain.end().left() / 4))
        self._torn_down = doing.error is None
        if doing.error is not None:
            log.warning("Worker %s: RQ's teardown failed: %s", self.name, doing.error)
        # A scheduler that was killed has left its locks and its own entry behind.
        self._torn_down &= rq_scheduler.stopped_by_itself(self)

    def _conclude(self, worked: bool) -> bool:
        self._attention.loop_left(self._run.reason(), failed=self._run.error is not None)
        code = self._ending.run(self._requeue_leftover)
        self._memory.close()
        self._inbox.told_to_stop = bool(code) or self._drain.signal is not None
        if code:
            raise SystemExit(code)
        return worked

    def _requeue_leftover(self) -> bool:
        """Give back what Redis could not be told of, or what a fetch took without our having heard of it.

        Returns:
            whether nothing is left in our hands.
        """
        if self._current_job is not None:
            current_job = self._current_job
            current_job.requeue_or_fail(Deadline.after(0))
            self._account(current_job)
            return current_job.returned
        self._dequeuer.requeue_leftover()
        # What ended the start may have been another worker of this name: then the entry is that one's.
        if not self._torn_down and self.connection.hget(self.key, "pid") in (None, str(os.getpid()).encode()):
            forget(self.connection, self._heartbeat.registration)
        return True
