"""The job that a dead worker held: whether somebody still runs it, and what becomes of it."""

from __future__ import annotations

import logging
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.core.phases import JobOutcome
from graceful.core.records import InFlightJob, utc_now
from graceful.core.text import one_line
from graceful.worker.cluster import log
from graceful.worker.cluster.abandoned import undo
from graceful.worker.cluster.process_identity import Process, oom_kills
from graceful.worker.cluster.registration import Registration
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from graceful.worker.queue.fetch import HELD_KEY, held_fields
from graceful.worker.queue.lua import counter
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD, HeldJob, Requeued, Why, requeue

logger = logging.getLogger("graceful.worker")
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix


class DeadWorkersJob:
    """What is in Redis of the job that a worker held when it died; there need not be one.

    Args:
        connection: a client of the server.
        settings: the settings in effect.
        registration: the dead worker.
        worker: the living worker that reaps; None in another process, which cannot fail a job.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """

    def __init__(
        self, connection: redis.Redis, settings: Settings, registration: Registration, worker: BaseWorker | None
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._registration = registration
        self._worker = worker
        self._held = self._read()

    def _read(self) -> dict[str, str]:
        """Its job in flight; empty if that cannot be read."""
        try:
            found: Any = self._connection.hgetall(HELD_KEY.format(self._registration.worker_id))
            held = held_fields(found)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            logger.warning(log.HELD_WRONG_TYPE, one_line(self._registration.worker_id))
            self._connection.delete(HELD_KEY.format(self._registration.worker_id))
            return {}
        return held if {"job", "queue"} <= held.keys() and held["queue"].startswith(QUEUE_PREFIX) else {}

    def horse_lives(self, *, overdue: bool) -> bool:
        """Whether its horse still runs the job. It notices its worker's death and ends; see ``parent_death``.

        Args:
            overdue: whether the worker's heartbeat is overdue.
        """
        pid = self._held.get("horse", "")
        if not (pid.isascii() and pid.isdecimal() and len(pid) <= 10):
            return False
        worker = self._registration.process
        horse = Process(worker.machine, int(pid), self._held.get("horse_started", ""), worker.host)
        return horse.local and not horse.dead(overdue=overdue)

    def needs_a_worker(self) -> bool:
        """Whether only a worker can decide or carry out what becomes of the job."""
        if self._worker is not None:
            return False
        if "horse" not in self._held:
            return False  # Not started: it is requeued in any case.
        if self._held.get("policy") != "requeue":
            return True  # It is to be failed, or an earlier version took it and did not write its policy.
        fields = (INTERRUPTIONS_FIELD, "graceful_interruptions_before_progress")
        try:
            found: Any = self._connection.hmget(Job.key_for(self._held["job"]), fields)
        except ResponseError:
            return False  # It is no job, and is gone for the script too.
        count, before_progress = map(counter, found)
        if before_progress > count:
            before_progress = 0
        return count + 1 - before_progress > self._settings.max_interruptions

    def requeue(self) -> InFlightJob | None:
        """Requeue the job at the front of its queue, as an interrupted one; or fail it, where it must not go back.

        Returns:
            what became of it; None where nothing did.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable.
        """
        registration, held = self._registration, self._held
        if "job" not in held:
            return None
        job_id, queue_key = held["job"], held["queue"]
        origin = self._origin(job_id) or queue_key.removeprefix(QUEUE_PREFIX)
        if undo(self._connection, registration.worker_id, registration.worker, job_id, origin):
            logger.warning(log.FAILURE_UNDONE, one_line(registration.worker), one_line(job_id))
        execution = rq_private.latest_execution(self._connection, job_id, origin, registration.worker)
        # A job that was taken and not started yet has lost nothing by it.
        why = Why.WORKER_DIED if "horse" in held else Why.NOT_STARTED
        job_held = HeldJob(registration.worker_id, job_id, origin, queue_key, execution)
        # The job is not unpickled here; its horse has written down what it says of itself (fetch.describe).
        policy, job = held.get("policy"), None
        if self._worker is not None:
            try:
                job = self._worker.job_class.fetch(
                    job_id, connection=self._connection, serializer=self._worker.serializer
                )
            except NoSuchJobError:
                pass  # The script finds that out too.
            except (RedisError, OSError):
                raise
            except Exception:
                # It would end each worker that takes it. RQ's maintenance fails it, out of the intermediate queue.
                logger.exception(log.JOB_UNREADABLE, one_line(registration.worker), one_line(job_id))
                return None
            if job is not None and why is Why.WORKER_DIED and not policy:
                # A version that does not write it down took it. It may say that it must not be started again.
                policy = fail_job.policy(self._worker, job)
        attempt = self._attempt() if why is Why.WORKER_DIED else None
        given = requeue(self._connection, job_held, why, self._settings, policy=policy, attempt=attempt)
        in_flight = InFlightJob(job_id, held.get("function", "?"), origin, interruptions=given.interruptions)
        if given.must_fail:
            return self._fail(in_flight, job, job_held, given)
        if given.found == "not held":
            return None  # Another worker has it.
        return in_flight._replace(outcome=given.outcome(why))

    @property
    def oom_killed(self) -> bool:
        """Whether the OOM killer has killed a process of the worker's control group since its start."""
        kills, before = oom_kills(), self._registration.oom_kills
        return kills is not None and before is not None and self._registration.process.local and kills > before

    def _attempt(self) -> Attempt:
        worker = self._registration
        return Attempt(
            ended=AttemptEnd.WORKER_DIED,
            at=utc_now(),
            worker=worker.worker,
            hostname=worker.process.host,
            function=self._held.get("function", ""),
            out_of_memory=self.oom_killed,
        )

    def _fail(self, in_flight: InFlightJob, job: Job | None, held: HeldJob, given: Requeued) -> InFlightJob | None:
        """Fail a job that is not to be requeued; its callbacks take a worker to run them."""
        worker = self._worker
        if worker is None or job is None:
            return None  # It stays held until a worker comes by; see needs_a_worker.
        queue: Queue = worker.queue_class.from_queue_key(
            held.queue_key, connection=self._connection, job_class=worker.job_class, serializer=worker.serializer
        )
        fail_job.fail(worker, job, queue, held.execution, given.interruptions, by_policy=given.by_policy)
        return in_flight._replace(outcome=JobOutcome.INTERRUPTION_FAILED)

    def _origin(self, job_id: str) -> str:
        """The queue in the job's hash; empty if there is none."""
        try:
            origin: Any = self._connection.hget(Job.key_for(job_id), "origin")
        except ResponseError:
            return ""  # Not a job.
        return (origin or b"").decode("utf-8", "replace")
