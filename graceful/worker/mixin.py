"""What makes an RQ worker class graceful. It overrides RQ's public methods, and leaves the work loop to RQ."""

from __future__ import annotations

import inspect
import logging
import math
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from datetime import timedelta
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq.command import parse_payload
from rq.exceptions import NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.queue import Queue
from rq.suspension import is_suspended
from rq.timeouts import HorseMonitorTimeoutException
from rq.worker import BaseWorker, WorkerStatus

from graceful import conf
from graceful.core.phases import JobOutcome, Phase, Reason
from graceful.core.records import InFlightJob, cut, utc_now
from graceful.jobs.channel import Channel, Verdict
from graceful.reports.journal import Journal
from graceful.worker import horse, os_signals, rq_private
from graceful.worker.drain import STOPS, Drain
from graceful.worker.ending import Ending
from graceful.worker.fetch import Fetched, Fetcher, QueueWatch
from graceful.worker.give_back import GivenBack, give_back
from graceful.worker.lifetime import Lifetime
from graceful.worker.process import bounded, close_database_connections

log = logging.getLogger("graceful.worker")
HEARTBEAT_SECONDS = 60.0
SUSPENDED_SECONDS = 1.0
LOOK_SECONDS = 1.0
TIGHT_SECONDS = 2.0
"""How long one Redis command may take once the shutdown was asked for."""
TEARDOWN_SECONDS = 1.5
STACK_SECONDS = 0.5


class GracefulMixin(BaseWorker):  # type: ignore[misc]
    """Goes over an RQ worker class; see :func:`graceful.worker.make_graceful`.

    After :meth:`work` the attributes ``exit_code`` and ``report`` say how the shutdown went.
    """

    runs_jobs_itself = False
    """Whether jobs run in the worker's own process (SimpleWorker) instead of a horse's."""
    grace_seconds: float | None = None
    """The grace period in seconds, in place of ``GRACEFUL_TIMEOUT``."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's ``work``, with the same arguments; then exit hooks and report.

        Raises:
            SystemExit: with the exit code of the design's table, where that is not 0.
            graceful.exceptions.InvalidSettings: a setting is wrong; nothing was started.
        """
        settings = conf.settings()
        if self.grace_seconds is not None:
            settings = settings.with_timeout(self.grace_seconds)
        bound = inspect.signature(super().work).bind(*args, **kwargs)
        self._options = bound.arguments
        close_database_connections()
        with os_signals.capture() as inbox:
            self._inbox = inbox
            self._seen = 0
            self._settings = settings
            self._drain = Drain(settings)
            self._channel = Channel()
            self._lifetime = Lifetime(
                self.name,
                tuple(self.queue_names()),
                f"{type(self).__module__}.{type(self).__qualname__}",
                settings,
                Journal(self.connection),
            )
            self._ending = Ending(self._lifetime, self._drain, self.kill_horse_for_good)
            self._fetcher = Fetcher(self.connection, self.name, self._lifetime.report.id)
            self._watch = QueueWatch(self.connection, inbox)
            self._error: BaseException | None = None
            self._executed = 0
            self._in_hand: InFlightJob | None = None
            self._execution: Execution | None = None
            self._hard_limit_hit = False
            worked = False
            try:
                worked = super().work(*args, **kwargs)
            except BaseException as error:
                self._note(error)
                log.exception("Worker %s: ended by an error", self.name)
            return self._conclude(worked)

    @property
    def exit_code(self) -> int | None:
        """The exit code that the shutdown came to; None before it."""
        return self._lifetime.report.exit_code

    @property
    def report(self) -> Any:
        """The shutdown report, as far as it is known."""
        return self._lifetime.report

    # Signals and what follows from them.

    def _install_signal_handlers(self) -> None:
        """RQ's would do I/O in the handler; ours are installed by :func:`os_signals.capture`, around the loop."""

    def handle_payload(self, message: dict[str, Any]) -> None:
        """A command from RQ's channel, in the pubsub thread: ``shutdown`` is recorded like a signal."""
        if parse_payload(message).get("command") == "shutdown":
            self._inbox.record_command("shutdown")
        else:
            super().handle_payload(message)

    def attend(self) -> None:
        """Act upon what was asked for since the last time."""
        while self._seen < len(self._inbox.received):
            received = self._inbox.received[self._seen]
            self._seen += 1
            if received.name in STOPS:
                first = self._drain.ask(received)
                self._stop_asked(first, received.at)
            elif received.name == os_signals.QUIET_SIGNAL.name:
                self._drain.quiet = True
                log.info("Worker %s: quiet, takes no new job", self.name)
            elif received.name == os_signals.STACKS_SIGNAL.name:
                self._log_stacks()

    def _stop_asked(self, first: bool, at: float) -> None:
        limits = self._drain.limits
        assert limits is not None
        self._channel.announce(limits)
        if not first:
            log.warning("Worker %s: asked to stop again", self.name)
            return
        log.info(
            "Worker %s [PID %d]: shutdown requested (%s), %.1f s left",
            self.name,
            os.getpid(),
            self._drain.signal or self._drain.reason,
            limits.end.left(),
        )
        self._ending.guard(limits.end)
        self._tighten()
        asked_at = utc_now() - timedelta(seconds=time.monotonic() - at)
        self._lifetime.requested(self._drain.reason or Reason.SIGNAL, self._drain.signal, asked_at)
        if self._in_hand is not None:
            self._lifetime.change(phase=Phase.DRAINING)
            self._lifetime.job_met(self._in_hand)
        self._lifetime.write()
        process = rq_private.scheduler_process(self)
        if process is not None and process.is_alive():
            process.terminate()

    def _tighten(self) -> None:
        """From now on no Redis command may hold the worker for long, whatever RQ set for its blocking ones."""
        pool = self.connection.connection_pool
        pool.connection_kwargs.update(
            socket_timeout=TIGHT_SECONDS, socket_connect_timeout=TIGHT_SECONDS, retry=Retry(NoBackoff(), 1)
        )
        pool.disconnect(inuse_connections=False)

    def _log_stacks(self) -> None:
        names = sys._current_frames()
        text = "\n".join(f"Thread {ident}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in names.items())
        log.warning("Worker %s: stacks of the worker\n%s", self.name, text)
        if self.horse_pid:
            log.warning("Worker %s: stacks of the work horse\n%s", self.name, self._horse_stacks())

    def _note(self, error: BaseException) -> None:
        """RQ's loop logs an error and breaks off; this is how its end knows of it."""
        if not isinstance(error, StopRequested) and self._error is None:
            self._error = error

    # Taking jobs.

    def check_for_suspension(self, burst: bool) -> None:
        """As RQ's, but a stop ends it at once; here the loop also ends when a stop was asked for."""
        told = False
        while True:
            self.attend()
            if self._drain.requested:
                raise StopRequested
            try:
                suspended = bool(is_suspended(self.connection, self))
            except RedisError:
                return  # The dequeue that follows waits for Redis to come back.
            if not suspended and not self._drain.quiet:
                return
            if burst:
                log.info("Worker %s: %s in burst mode, exiting", self.name, "suspended" if suspended else "quiet")
                raise StopRequested
            if not told:
                told = True
                log.info("Worker %s: %s", self.name, "suspended" if suspended else "waits to be stopped")
                self.set_state(WorkerStatus.SUSPENDED)
            self._inbox.wait(SUSPENDED_SECONDS)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """As RQ's: the next job and its queue, or None when the burst or the idle time is over.

        Raises:
            StopRequested: a stop was asked for.
        """
        began = time.monotonic()
        wait_seconds = 1.0
        named = False
        while True:
            self.attend()
            if self._drain.requested:
                raise StopRequested
            if self._drain.quiet:
                self.check_for_suspension(timeout is None)
            try:
                if not named:
                    self.set_state(WorkerStatus.IDLE)
                    self.procline("Listening on " + ",".join(self.queue_names()))
                    named = True
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                result = self._take()
                if result is not None:
                    return result
                if timeout is None:
                    return None
                seconds = float(timeout)
                if max_idle_time is not None:
                    idle_left = math.ceil(max_idle_time - (time.monotonic() - began))
                    if idle_left <= 0:
                        return None
                    seconds = min(seconds, idle_left)
                self._wait_for_work(seconds)
                wait_seconds = 1.0
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                if self._inbox.received[self._seen :]:
                    continue
                log.error(
                    "Worker %s: could not connect to Redis: %s, retrying in %.0f s", self.name, error, wait_seconds
                )
                self._inbox.wait(wait_seconds)
                wait_seconds = min(wait_seconds * self.exponential_backoff_factor, self.max_connection_wait_time)

    def _wait_for_work(self, seconds: float) -> None:
        queue_keys = [queue.key for queue in rq_private.ordered_queues(self)]
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._watch.wait(queue_keys, min(left, HEARTBEAT_SECONDS)):
                return
            self.heartbeat()

    def _take(self) -> tuple[Job, Queue] | None:
        while True:
            pairs = [(each.key, each.intermediate_queue_key) for each in rq_private.ordered_queues(self)]
            fetched = self._fetcher.fetch(pairs)
            if fetched is None:
                return None
            result = self._unpack(fetched)
            if result is not None:
                return result

    def _unpack(self, fetched: Fetched) -> tuple[Job, Queue] | None:
        """The job behind an id, as ``Queue.dequeue_any`` would give it; None if it was deleted meanwhile."""
        queue = self.queue_class.from_queue_key(
            fetched.queue_key,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )
        try:
            job = self.job_class.fetch(fetched.job_id, connection=self.connection, serializer=self.serializer)
        except NoSuchJobError:
            IntermediateQueue(fetched.queue_key, self.connection).remove(fetched.job_id)
            return None
        self.reorder_queues(reference_queue=queue)
        job.redis_server_version = self.get_redis_server_version()
        log.debug("Worker %s: took job %s from %s", self.name, job.id, queue.name)
        if self.log_job_description:
            self.log.info("Worker %s: %s: %s (%s)", self.name, queue.name, job.description, job.id)
        else:
            self.log.info("Worker %s: %s: %s", self.name, queue.name, job.id)
        return job, queue

    def execute_job(self, job: Job, queue: Queue) -> None:
        """As RQ's; a job that was taken after the stop was asked for goes back to the front of its queue.

        Raises:
            StopRequested: a stop was asked for before the job was started.
        """
        self.attend()
        if self._drain.requested:
            given = give_back(self, job, queue.key, None)
            log.info("Worker %s: job %s is back in %s (%s)", self.name, job.id, queue.name, given.found)
            raise StopRequested
        self._channel.reset()
        self._in_hand = InFlightJob(job.id, _function_name(job), queue.name)
        self._execution = None
        self._hard_limit_hit = False
        try:
            try:
                if not self.runs_jobs_itself:
                    close_database_connections()
                super().execute_job(job, queue)
            finally:
                self._see_the_horse_out(job, queue)
                self._account(job)
        except BaseException as error:
            self._note(error)
            raise
        self._executed += 1

    def prepare_execution(self, job: Job) -> Execution:
        """As RQ's; the execution is kept, so that it can be removed if the job is interrupted."""
        self._execution = super().prepare_execution(job)
        return self._execution

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """As RQ's; our fetch moves jobs to the intermediate queue however many queues the worker has."""
        super().prepare_job_execution(job, True)

    def _account(self, job: Job) -> None:
        in_hand, self._in_hand = self._in_hand, None
        assert in_hand is not None
        verdict = self._channel.verdict
        if in_hand.outcome is JobOutcome.RUNNING:
            finished = verdict is Verdict.FINISHED
            in_hand = replace(in_hand, outcome=JobOutcome.FINISHED if finished else JobOutcome.FAILED)
            self._lifetime.job_ended(finished)
        if self._drain.requested:
            after = time.monotonic() - self._drain.instants[0]
            self._lifetime.job_met(replace(in_hand, seconds=max(0.0, after)))

    # The horse.

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """As RQ's, with signals held back until the horse has its own handlers."""
        with os_signals.blocked():
            super().fork_work_horse(job, queue)

    def join_channel(self, channel: Channel) -> None:
        """In a horse that was not forked: share this memory with the worker."""
        self._channel = channel

    def setup_work_horse_signals(self) -> None:
        """As RQ's, then ours: a SIGTERM to the group or to the horse itself harms no job."""
        super().setup_work_horse_signals()
        horse.settle(self._channel)

    def perform_job(self, job: Job, queue: Queue, *execution: Execution) -> bool:
        """As RQ's, in the horse or in the worker itself; interruptible, and with horse exit hooks at the end."""
        return horse.perform(self._channel, job, lambda: super(GracefulMixin, self).perform_job(job, queue, *execution))

    def handle_execution_ended(self, *args: Any, **kwargs: Any) -> None:
        """RQ's first step after the job, on its way to success as to failure: not taken by an interrupted job."""
        horse.raise_if_interrupted()
        super().handle_execution_ended(*args, **kwargs)

    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        """As RQ's; a Redis that is away does not part the worker from its running job."""
        try:
            super().maintain_heartbeats(*args, **kwargs)
        except RedisError as error:
            log.warning("Worker %s: no heartbeat, Redis is away: %s", self.name, error)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """As RQ's; not sent any more once the worker is about to go."""
        # The horse has another life than the worker: it always sends, and only in pipelines.
        if pipeline is None and not self.is_horse and self._drain.requested and self._in_hand is None:
            return
        super().heartbeat(timeout, pipeline)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the horse, and see to it that it keeps to the limits of a shutdown.

        Returns:
            as RQ's: pid, status, resource usage. The status is 0 for a job that the shutdown ended, since RQ's
            failure path is not for it.

        Raises:
            HorseMonitorTimeoutException: it is time for a heartbeat. RQ raises it out of an alarm
                (``Worker.monitor_work_horse``), which could lose the status of a horse that ends at that instant.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        heartbeat_at = time.monotonic() + self.job_monitoring_interval
        while True:
            try:
                pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
            except ChildProcessError:
                return None, None, None
            if pid:
                rq_private.set_horse_pid(self, 0)
                ended_by_us = self._hard_limit_hit or self._channel.verdict is Verdict.INTERRUPTED
                return pid, 0 if ended_by_us else status, usage
            if time.monotonic() >= heartbeat_at:
                raise HorseMonitorTimeoutException("time for a heartbeat")
            self.attend()
            self._inbox.wait(min(LOOK_SECONDS, self._keep_limits(), max(0.0, heartbeat_at - time.monotonic())))

    def _keep_limits(self) -> float:
        """Interrupt the job at the soft limit, kill it at the hard one. Returns seconds until the next limit."""
        limits = self._drain.limits
        if limits is None:
            return LOOK_SECONDS
        if limits.hard.expired:
            if not self._hard_limit_hit:
                self._hard_limit_hit = True
                stack = self._horse_stacks()
                log.warning("Worker %s: the job did not end, killing its horse %d", self.name, self.horse_pid)
                self._channel.write_stack(stack)
                self.kill_horse(signal.SIGKILL)
            return LOOK_SECONDS
        if limits.soft.expired:
            if not self._channel.interrupt:
                log.warning("Worker %s: no time left for the job, interrupting it", self.name)
                self._channel.interrupt = True
                _send(self.horse_pid, os_signals.INTERRUPT_SIGNAL)
            return limits.hard.left()
        return limits.soft.left()

    def _see_the_horse_out(self, job: Job, queue: Queue) -> None:
        """Wait for a horse that an error left alone, then put a job that the shutdown ended back in its queue."""
        if self.horse_pid:
            if not self._drain.requested:
                self._drain.begin(time.monotonic(), Reason.REDIS_LOST)
                self._stop_asked(True, time.monotonic())
            while self.horse_pid:
                try:
                    self.wait_for_horse()
                    break
                except HorseMonitorTimeoutException:
                    continue
            rq_private.set_horse_pid(self, 0)
        if self._hard_limit_hit or self._channel.verdict is Verdict.INTERRUPTED:
            self._put_back(job, queue)

    def _put_back(self, job: Job, queue: Queue) -> None:
        assert self._in_hand is not None
        stack = cut(self._channel.read_stack())
        outcome = JobOutcome.KILLED if self._hard_limit_hit else JobOutcome.INTERRUPTED
        given = self._give_back_patiently(job, queue)
        if given is None:
            self._in_hand = replace(self._in_hand, outcome=JobOutcome.UNKNOWN, stack=stack)
            return
        if given.too_many:
            reason = f"TooManyInterruptions: interrupted by {given.interruptions} shutdowns, the last one included"
            rq_private.fail(self, job, queue, reason, self._execution)
            outcome = JobOutcome.INTERRUPTION_FAILED
        elif not given.back:
            outcome = JobOutcome.FINISHED if given.found == "finished" else JobOutcome.FAILED
        log.warning("Worker %s: job %s was stopped by the shutdown: %s", self.name, job.id, given.found)
        self._in_hand = replace(self._in_hand, outcome=outcome, interruptions=given.interruptions, stack=stack)

    def _give_back_patiently(self, job: Job, queue: Queue) -> GivenBack | None:
        """Redis may be slow or away just now: try until half of the hooks' time is gone."""
        until = self._drain.end().earlier(self._settings.hooks_timeout / 2)
        while True:
            try:
                return give_back(self, job, queue.key, self._execution, self._settings.max_interruptions)
            except RedisError as error:
                log.error("Worker %s: job %s is not back in its queue yet: %s", self.name, job.id, error)
                if until.expired:
                    return None
                time.sleep(min(0.2, until.left()))

    def _horse_stacks(self) -> str:
        """Stacks of all threads of the horse, written by faulthandler: also of one that hangs in C code."""
        before = size = len(self._channel.read_stack())
        _send(self.horse_pid, os_signals.STACKS_SIGNAL)
        until = time.monotonic() + STACK_SECONDS
        while time.monotonic() < until:
            time.sleep(0.01)
            text = self._channel.read_stack()
            if len(text) == size > before:
                return text  # Nothing came in the last 10 ms: it is complete.
            size = len(text)
        return self._channel.read_stack()

    def kill_horse_for_good(self) -> None:
        """Kill the horse if there is one; the last thing that a worker does to it."""
        if self.horse_pid:
            self.kill_horse(signal.SIGKILL)

    # The end.

    def stop_scheduler(self) -> None:
        """As RQ's, without its unbounded wait; locks of a scheduler that had to be killed are released here."""
        process = rq_private.scheduler_process(self)
        if process is None or not process.pid:
            return
        process.terminate()
        process.join(max(0.1, min(2.0, self._drain.end().left() / 4)))
        if process.exitcode != 0:
            process.kill()
            process.join(0.2)
            self.scheduler.release_locks()

    def unsubscribe(self) -> None:
        """As RQ's, in an order in which the thread sees that it has to stop before it is woken up."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(timeout=0.5)

    def teardown(self) -> None:
        """As RQ's, with a bound: a Redis that does not answer must not eat the time of the hooks."""
        if self.is_horse:
            return
        self._watch.close()
        doing = bounded(super().teardown, min(TEARDOWN_SECONDS, self._drain.end().left() / 4))
        if doing.error is not None:
            log.warning("Worker %s: RQ's teardown failed: %s", self.name, doing.error)

    def _conclude(self, worked: bool) -> bool:
        if not self._drain.requested:
            self._drain.begin(time.monotonic(), self._reason())
            self._lifetime.requested(self._drain.reason or Reason.ERROR, None, utc_now())
        elif self._error is not None:
            reason = self._reason()
            self._lifetime.change(reason=reason)
        code = self._ending.run(self._give_back_leftover)
        self._channel.close()
        if code:
            raise SystemExit(code)
        return worked

    def _give_back_leftover(self) -> None:
        """Give back what a fetch took without our having heard of it, and say that we hold nothing more."""
        fetched = self._fetcher.unconfirmed()
        if fetched is not None:
            result = self._unpack(fetched)
            if result is not None:
                give_back(self, result[0], fetched.queue_key, None)
        self._fetcher.forget()

    def _reason(self) -> Reason:
        if self._error is not None:
            lost = isinstance(self._error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError))
            return Reason.REDIS_LOST if lost else Reason.ERROR
        most = self._options.get("max_jobs")
        if most is not None and self._executed >= most:
            return Reason.MAX_JOBS
        if self._options.get("burst"):
            return Reason.BURST
        return Reason.IDLE if self._options.get("max_idle_time") is not None else Reason.ERROR


def _function_name(job: Job) -> str:
    try:
        return str(job.func_name)
    except Exception:
        return "?"  # The job's data cannot be read; RQ will say so when it runs.


def _send(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # It ended by itself meanwhile.
