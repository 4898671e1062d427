"""What makes an RQ worker class graceful: a thin face to RQ, behind which a :class:`Session` does the work."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from typing import Any

from redis.exceptions import RedisError
from rq.command import parse_payload
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.job import Job
from rq.logutils import setup_loghandlers
from rq.queue import Queue

from graceful import conf
from graceful.core.records import ShutdownReport
from graceful.core.shutdown import State
from graceful.exceptions import InvalidSettings
from graceful.hooks import registry
from graceful.worker.at_work import at_work
from graceful.worker.cluster import rq_scheduler
from graceful.worker.cluster.membership import NOT_SENT
from graceful.worker.compat.database import close_database_connections
from graceful.worker.horse import parent_death
from graceful.worker.horse.worker_methods import JobInFlight
from graceful.worker.session import Session
from graceful.worker.shutdown import os_signals

log = logging.getLogger("graceful.worker")
INVALID_SETTINGS = "Worker %s: not started: %s"
NO_MAINTENANCE = "Worker %s: no maintenance, Redis is unreachable: %s"
MAINTENANCE_FAILED = "Worker %s: RQ's maintenance failed"


class GracefulMixin(JobInFlight):
    """Goes over an RQ worker class; see :func:`graceful.worker.make_graceful`.

    After :meth:`work` the attributes ``exit_code`` and ``report`` say how the shutdown went.
    """

    _ended: Session | None = None
    grace_seconds: float | None = None
    """The grace period in seconds, in place of ``GRACEFUL_TIMEOUT``."""
    max_memory: int | None = None
    """In MB, in place of ``GRACEFUL_MAX_MEMORY``."""
    max_age: float | None = None
    """In seconds, in place of ``GRACEFUL_MAX_AGE``."""

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
            settings = settings.with_recycling(self.max_memory, self.max_age)
            registry.exit_hooks()
        except InvalidSettings as error:
            log.error(INVALID_SETTINGS, self.name, error)
            raise SystemExit(os.EX_CONFIG) from error
        close_database_connections()
        with os_signals.capture() as inbox:
            self._session = self._ended = session = Session(self, inbox, settings)
            self.join(session.worker_id, session.memory)
            systemd = _systemd(self, session)
            worked = False
            try:
                worked = super().work(*args, **kwargs)
                session.loop.returned()
            except BaseException as error:
                session.loop.ended_by(error)
            try:
                code = self._conclude(session)
            finally:
                self.is_at_work, self._session = False, None
                session.memory.close()
                if systemd is not None:
                    systemd.end()
        if code:
            raise SystemExit(code)
        return worked

    def _conclude(self, session: Session) -> int:
        return session.conclude()

    @property
    def exit_code(self) -> int | None:
        """The exit code that the shutdown came to; None before it."""
        return self._ended.coordinator.state.exit_code if self._ended else None

    @property
    def seconds_left(self) -> float:
        """Seconds until the process has to be over; the whole grace period while nobody wants it to end."""
        return self._ended.coordinator.end().left() if self._ended else conf.settings().timeout

    @property
    def shutdown_state(self) -> State | None:
        """The state of the shutdown as it is now; None before :meth:`work`."""
        return self._ended.coordinator.state if self._ended else None

    @property
    def report(self) -> ShutdownReport | None:
        """The shutdown report, as far as it is known; None before :meth:`work`."""
        return self._ended.shutdown_report() if self._ended else None

    # RQ's loop, see graceful.worker.loop.

    @at_work
    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """As RQ's, and the start of the session."""
        setup_loghandlers(logging_level, date_format, log_format, name="graceful")
        self._at_work.start(lambda: super(GracefulMixin, self).bootstrap(logging_level, date_format, log_format))

    @at_work
    def _install_signal_handlers(self) -> None:
        """RQ's would do I/O in the handler; ours are installed by :func:`os_signals.capture`, around the loop."""

    @at_work
    def handle_payload(self, message: dict[str, Any]) -> None:
        """A command from RQ's channel, in the pubsub thread: ``shutdown`` and ours are recorded like a signal."""
        command = parse_payload(message).get("command")
        if command in os_signals.COMMANDS:
            self._at_work.inbox.record_command(command)
        else:
            super().handle_payload(message)

    @at_work
    def check_for_suspension(self, burst: bool) -> None:
        """As RQ's, but a stop ends it at once.

        Raises:
            StopRequested: a stop was asked for, or a burst finds the workers suspended.
        """
        self._at_work.dequeuer.hold_off(burst)

    @at_work
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """As RQ's: the next job and its queue, or None when the burst or the idle time is over.

        Raises:
            StopRequested: a stop was asked for.
        """
        rq_scheduler.register(self, self._at_work.membership.heartbeat)
        return self._at_work.dequeuer.next_job(timeout, max_idle_time)

    @at_work
    def execute_job(self, job: Job, queue: Queue) -> None:
        """As RQ's; a job that the shutdown ends is requeued.

        Raises:
            StopRequested: a stop was asked for before the job was started.
        """
        session = self._at_work
        with session.scale_in.job() if session.scale_in is not None else nullcontext():
            session.execute(job, queue, lambda: super(GracefulMixin, self).execute_job(job, queue))

    @at_work
    def teardown(self) -> None:
        """As RQ's, with a bound."""
        if not self.is_horse:
            self._at_work.tear_down(super().teardown)

    # What RQ's loop calls on the way.

    @at_work
    def run_maintenance_tasks(self) -> None:
        """As RQ's; ours follows when no job waits, or the next time at the latest."""
        try:
            with parent_death.followed():  # A scheduler that has ended is started again here.
                super().run_maintenance_tasks()
        except RedisError as error:
            log.warning(NO_MAINTENANCE, self.name, error)
            return
        except Exception:
            # One job that nobody can read must not be the end of each worker that comes across it.
            log.exception(MAINTENANCE_FAILED, self.name)
        self._at_work.dequeuer.maintain_when_idle()

    @at_work
    def _start_scheduler(self, *args: Any, **kwargs: Any) -> None:
        """As RQ's; a scheduler whose worker is killed does not go on alone."""
        with parent_death.followed():
            super()._start_scheduler(*args, **kwargs)

    @at_work
    def stop_scheduler(self) -> None:
        """As RQ's, without its unbounded wait; locks of a scheduler that had to be killed are released."""
        rq_scheduler.stop(self, self._at_work.coordinator.end().left() / 4)

    @at_work
    def unsubscribe(self) -> None:
        """As RQ's, in an order in which the thread sees that it has to stop before it is woken up."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(timeout=0.5)

    @at_work
    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """As RQ's, in one round trip; not sent any more once the worker is about to go."""
        # The horse has another heartbeat than the worker: it always sends, and only in pipelines.
        if pipeline is not None or self.is_horse:
            super().heartbeat(timeout, pipeline)
            return
        state = self._at_work.coordinator.state
        if state.stopping and state.job is None:
            return
        try:
            with self.connection.pipeline(transaction=False) as at_once:  # Three commands, one round trip.
                super().heartbeat(timeout, at_once)
                at_once.execute()
        except RedisError as error:
            # RQ's loop would end the worker for it; the dequeue that follows waits for Redis to come back.
            log.warning(NOT_SENT, self.name, error)


def speaks_for_unit() -> bool:
    """Whether systemd has started this very process, and wants to be told how it is.

    By ``SYSTEMD_EXEC_PID``, since systemd 248: a worker of a pool, or in a job's program, must not speak for the unit.
    """
    own = str(os.getpid())
    return "NOTIFY_SOCKET" in os.environ and os.environ.get("SYSTEMD_EXEC_PID", own) == own


def _systemd(worker: GracefulMixin, session: Session) -> Any:
    """What tells systemd how the worker is; None where nobody wants to know."""
    if not speaks_for_unit():
        return None
    # Imported here, since a worker without systemd is not to pay for it at its start: 2 ms.
    from graceful.worker.probes import systemd

    return systemd.begin(worker, session.inbox, session.worker_id)
