"""Dequeueing: waiting for the next job, and every reason not to take one."""

from __future__ import annotations

import logging
import math
import time

import redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError, StopRequested
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.queue import Queue
from rq.suspension import is_suspended
from rq.worker import BaseWorker, WorkerStatus

from graceful.conf import Settings
from graceful.threads import Bounded
from graceful.worker.cluster.heartbeat import HEARTBEAT_SECONDS
from graceful.worker.cluster.maintenance import run_maintenance
from graceful.worker.cluster.membership import Membership
from graceful.worker.compat import redis_connection, rq_private
from graceful.worker.compat.redis_connection import OwnConnection
from graceful.worker.queue import log
from graceful.worker.queue.fetch import Fetched, Fetcher
from graceful.worker.queue.requeue import HeldJob, Why, requeue
from graceful.worker.queue.wait import QueueWatch
from graceful.worker.recycling import Recycling
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.os_signals import Inbox

logger = logging.getLogger("graceful.worker")
MAINTENANCE_LOOK_SECONDS = 1.0
SUSPENDED_SECONDS = 1.0
FOR_NOW = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)
"""Errors that pass: Redis is unreachable, a replica, or out of memory for now."""


class Dequeuer:
    """Gives a worker its next job.

    Args:
        worker: the worker.
        worker_id: its id, under which it holds what it takes.
        settings: the settings that hold for it.
        coordinator: knows whether it is to stop, or to be quiet.
        membership: sends its heartbeat.
        inbox: wakes it from any waiting.
        own: the connection on which it waits.
        recycling: knows when the worker is too old to wait any longer.
    """

    def __init__(
        self,
        worker: BaseWorker,
        worker_id: str,
        settings: Settings,
        coordinator: Coordinator,
        membership: Membership,
        inbox: Inbox,
        own: OwnConnection,
        recycling: Recycling,
    ) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._settings = settings
        self._coordinator = coordinator
        self._membership = membership
        self._inbox = inbox
        self._recycling = recycling
        self._fetcher = Fetcher(worker.connection, worker_id)
        self._watch = QueueWatch(own, inbox, worker_id)
        self._fetched: Fetched | None = None
        self.redis_away = False
        """Whether the last try to get a job has found Redis unreachable; for probes."""
        self._maintenance_due = False

    def maintain_when_idle(self) -> None:
        """Run our maintenance when no job waits; now if none has not waited since it was last asked for."""
        if self._maintenance_due:
            self._maintain()
        else:
            self._maintenance_due = True

    def _maintain(self) -> None:
        """Run it in a thread: a signal does not wait for a database that does not answer, and leaves it to itself."""
        self._maintenance_due = False

        def maintain() -> None:
            try:
                run_maintenance(self._worker.connection, self._settings)
            finally:
                self._inbox.wake()

        doing = Bounded(maintain)
        if not doing.has_thread:
            doing.run()
        while doing.goes_on and not self._inbox.unread:
            self._inbox.wait(MAINTENANCE_LOOK_SECONDS)

    def hold_off(self, burst: bool) -> None:
        """Return when jobs may be taken: as RQ's ``check_for_suspension``, but a stop ends it at once.

        Raises:
            StopRequested: a stop was asked for, or there is nothing to wait for in a burst.
        """
        worker = self._worker
        told = False
        while True:
            state = self._coordinator.attend()
            if state.stopping:
                raise StopRequested
            try:
                suspended = bool(is_suspended(worker.connection, worker))
                if not suspended and not state.quiet:
                    return
                if burst:
                    logger.info(log.BURST_ENDS, worker.name, "suspended" if suspended else "quiet")
                    raise StopRequested
                if not told:
                    self._watch.leave()
                    logger.info(log.TAKES_NOTHING, worker.name, "suspended" if suspended else "waits to be stopped")
                    worker.set_state(WorkerStatus.SUSPENDED)
                    told = True
            except RedisError:
                if not state.quiet:
                    return  # The dequeue that follows waits for Redis to come back.
            self._membership.beat()
            self._inbox.wait(SUSPENDED_SECONDS)

    def next_job(self, timeout: int | None, max_idle_time: int | None) -> tuple[Job, Queue] | None:
        """As RQ's ``dequeue_job_and_maintain_ttl``.

        Args:
            timeout: seconds between two heartbeats while there is nothing to do; None in a burst.
            max_idle_time: seconds without a job after which to give up.

        Returns:
            the job and its queue, or None when the burst or the idle time is over, or the worker is too old.

        Raises:
            StopRequested: a stop was asked for.
        """
        worker = self._worker
        began = time.monotonic()
        wait_seconds = 1.0
        # Both were said just before, at the last job's end and in the look for a suspension.
        idle = worker.get_state() == WorkerStatus.IDLE
        heartbeat_at = began
        worker.procline("Listening on " + ",".join(worker.queue_names()))
        while True:
            state = self._coordinator.attend()
            if state.stopping:
                raise StopRequested
            if state.quiet:
                self.hold_off(timeout is None)
                idle, began = False, time.monotonic()
            try:
                if not idle:
                    worker.set_state(WorkerStatus.IDLE)
                    idle = True
                # Not between being woken and the fetch: others are woken for the same job, and it is waiting.
                if time.monotonic() - heartbeat_at >= HEARTBEAT_SECONDS:
                    worker.heartbeat()
                    heartbeat_at = time.monotonic()
                    if worker.should_run_maintenance_tasks:
                        worker.run_maintenance_tasks()
                taken = self._take()
                self.redis_away = False
                if taken is None and self._maintenance_due:
                    self._maintain()
                    continue
                if taken is not None or timeout is None:
                    return taken
                seconds = float(timeout)
                age_left = self._recycling.seconds_left
                if age_left is not None:
                    if not age_left:
                        return None
                    seconds = min(seconds, age_left)
                if max_idle_time is not None:
                    idle_left = math.ceil(max_idle_time - (time.monotonic() - began))
                    if idle_left <= 0:
                        return None
                    seconds = min(seconds, idle_left)
                self._wait_for_work(seconds)
                wait_seconds = 1.0
            except FOR_NOW as error:
                self.redis_away = True
                if self._inbox.unread:
                    continue
                if isinstance(error, redis.exceptions.ReadOnlyError):
                    # A replica since the last failover: the next connection may lead to the new primary.
                    redis_connection.drop_idle(worker.connection.connection_pool)
                logger.error(
                    log.UNREACHABLE,
                    worker.name,
                    error,
                    wait_seconds,
                )
                self._inbox.wait(wait_seconds)
                wait_seconds = min(wait_seconds * worker.exponential_backoff_factor, worker.max_connection_wait_time)

    def requeue_leftover(self) -> None:
        """Requeue what was fetched and not handed to the worker, also where the reply was lost.

        Raises:
            redis.exceptions.RedisError: Redis did not answer; the reaper will do it.
        """
        if self._fetcher.unsure:
            self._fetched = self._fetcher.unconfirmed()
        if self._fetched is None:
            return
        fetched, self._fetched = self._fetched, None
        try:
            job = self._job(fetched)
        except NoSuchJobError:
            return
        execution = None
        if fetched.forgotten:
            logger.warning(log.RECORD_LOST, self._worker.name, job.id)
            execution = rq_private.latest_execution(self._worker.connection, job.id, job.origin, self._worker.name)
        held = HeldJob(self._worker_id, job.id, job.origin, fetched.queue_key, execution)
        requeue(self._worker.connection, held, Why.NOT_STARTED, self._settings)

    def close(self) -> None:
        """Wait for nothing more."""
        self._watch.leave()

    def _wait_for_work(self, seconds: float) -> None:
        queue_keys = [queue.key for queue in rq_private.ordered_queues(self._worker)]
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._membership.beat()
            if self._watch.wait(queue_keys, min(left, HEARTBEAT_SECONDS)):
                return

    def _take(self) -> tuple[Job, Queue] | None:
        worker = self._worker
        while True:
            if self._fetched is None:
                queues = rq_private.ordered_queues(worker)
                self._fetched = self._fetcher.fetch([(each.key, each.intermediate_queue_key) for each in queues])
            fetched = self._fetched
            if fetched is None:
                return None
            self._watch.leave()
            if fetched.forgotten:
                self.requeue_leftover()
                continue
            try:
                job = self._job(fetched)
            except RedisError:
                raise  # It stays fetched, and is looked up again when Redis is back.
            except NoSuchJobError:
                self._fetched = None
                IntermediateQueue(fetched.queue_key, worker.connection).remove(fetched.job_id)
                continue
            except Exception:
                # A job that cannot be read ends the worker, as in RQ; RQ's maintenance fails it.
                self._fetched = None
                raise
            # Only then: announcing it may need Redis too.
            queue = self._announce(job, fetched)
            self._fetched = None
            return job, queue

    def _job(self, fetched: Fetched) -> Job:
        worker = self._worker
        job: Job = worker.job_class.fetch(fetched.job_id, connection=worker.connection, serializer=worker.serializer)
        return job

    def _announce(self, job: Job, fetched: Fetched) -> Queue:
        """What RQ does with a dequeued job besides (``Queue.dequeue_any``, ``dequeue_job_and_maintain_ttl``)."""
        worker = self._worker
        queue: Queue = worker.queue_class.from_queue_key(
            fetched.queue_key,
            connection=worker.connection,
            job_class=worker.job_class,
            serializer=worker.serializer,
            death_penalty_class=worker.death_penalty_class,
        )
        worker.reorder_queues(reference_queue=queue)
        job.redis_server_version = worker.get_redis_server_version()
        if worker.log_job_description:
            worker.log.info("Worker %s: %s: %s (%s)", worker.name, queue.name, job.description, job.id)
        else:
            worker.log.info("Worker %s: %s: %s", worker.name, queue.name, job.id)
        return queue
