"""The reaper: requeues the jobs of workers that were killed, and closes their reports.

One reaper at a time examines a dead worker, under a lock. Each step can be repeated, so a reaper may be killed too.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import redis
from django.db import connections
from redis.exceptions import RedisError, ResponseError
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core import report_json
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome
from graceful.core.post_mortem import Findings, amended, closed, knows_more
from graceful.core.records import InFlightJob, ShutdownReport, utc_now
from graceful.core.text import one_line
from graceful.exceptions import UnreadableReport
from graceful.reports import archive, set_aside
from graceful.reports.journal import JOURNAL_KEY, Journal
from graceful.reports.spool import Spool
from graceful.worker.cluster import log
from graceful.worker.cluster.abandoned import undo
from graceful.worker.cluster.deregister import deregister_from_rq
from graceful.worker.cluster.heartbeat import (
    HEARTBEATS_KEY,
    MACHINE_KEY,
    WORKERS_KEY,
    Peers,
    Registration,
    deregister,
    observe,
    raw,
)
from graceful.worker.cluster.process_identity import Process, machine, oom_kills
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from graceful.worker.queue.fetch import AUTOPSY_KEY, HELD_KEY, held_fields
from graceful.worker.queue.lua import counter
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD, HeldJob, Requeued, Why, requeue
from graceful.worker.queue.wait import release_seats
from graceful.worker.shutdown.threads import bounded

logger = logging.getLogger("graceful.worker")
LOCK_SECONDS = 30
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix
FREE_SECONDS = 6.0
"""How long a start waits for another reaper that is closing the report of a worker of the same name."""
ARCHIVE_SECONDS = 2.0


class Reaper:
    """Examines dead workers, on behalf of a living worker or of another process.

    Args:
        connection: a client of the server that they are on.
        name: who reaps, for the reports: ``"worker w1"``.
        life: the living worker's life, or another unique name.
        settings: the settings in effect.
        worker: the living worker. Without one, a job that may have to be failed is left to a worker, and so is the
            report of the worker that held it: failing unpickles the job.
    """

    def __init__(
        self, connection: redis.Redis, name: str, life: str, settings: Settings, worker: BaseWorker | None = None
    ) -> None:
        self._connection = connection
        self._name = name
        self._life = life
        self._settings = settings
        self._worker = worker

    def reap(self, peers: Peers) -> int:
        """Close the reports of the dead ones among them, and requeue their jobs.

        Args:
            peers: the workers to examine.

        Returns:
            how many reports were closed.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable; the next reaper finishes what was begun.
        """
        suspects = [life for life in dict.fromkeys((*peers.neighbours, *peers.overdue)) if life != self._life]
        closed_reports = 0
        for life in suspects:
            try:
                closed_reports += self._reap_one(life, overdue=life in peers.overdue)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                raise
            except Exception:
                # One entry that cannot be handled must not stop a living worker.
                logger.exception(log.NOT_CLOSED, one_line(life))
        return closed_reports

    def _reap_one(self, life: str, *, overdue: bool) -> int:
        registration = self._registration(life)
        if registration is None:
            # Half removed, or not ours: nothing more is known of it.
            set_aside.entry(self._connection, WORKERS_KEY, raw(life), "no registration of a worker")
            self._connection.zrem(HEARTBEATS_KEY, raw(life))
            self._connection.srem(MACHINE_KEY.format(machine()), raw(life))
            return 0
        if registration.process.dead(overdue=overdue):
            return self._under_lock(registration, overdue=overdue)
        return 0

    def close(self, life: str) -> None:
        """Close the report of a worker that is known to be dead; nothing happens if it is closed.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable; the next reaper will do it.
        """
        registration = self._registration(life)
        if registration is not None:
            self._under_lock(registration, overdue=True)

    def free_name(self, name: str, hostname: str, stopped: Callable[[], bool]) -> None:
        """Close the report of a dead worker of this name, so that RQ accepts the name again.

        A restarted container keeps its host name but has a new pid namespace: a worker of the same name on a host of
        the same name is the one that ran before.
        """
        for life, text in self._connection.hscan_iter(WORKERS_KEY):
            registration = Registration.from_json(text)
            if registration is None:
                set_aside.entry(self._connection, WORKERS_KEY, life, "no registration of a worker")
                continue
            if registration.worker != name or registration.life == self._life:
                continue
            report = self._report(registration)
            same_host = report is not None and report.hostname == hostname and not registration.process.local
            if registration.process.dead(overdue=False) or same_host:
                logger.info(log.NAME_TAKEN, name, one_line(registration.life))
                until = Deadline.after(FREE_SECONDS)
                while not self._under_lock(registration, overdue=False) and self._registration(registration.life):
                    if until.expired or stopped():
                        break
                    time.sleep(0.05)

    def _registration(self, life: str) -> Registration | None:
        text: Any = self._connection.hget(WORKERS_KEY, raw(life))
        registration = Registration.from_json(text) if text else None
        return registration if registration is not None and registration.life == life else None

    def _under_lock(self, registration: Registration, *, overdue: bool) -> int:
        key = AUTOPSY_KEY.format(registration.life)
        if not self._connection.set(key, self._life, nx=True, ex=LOCK_SECONDS):
            if self._connection.ttl(key) == -1:
                self._connection.expire(key, LOCK_SECONDS)  # Not set by us: it would never expire.
            return 0
        try:
            return int(self._examine(registration, overdue))
        finally:
            self._connection.delete(key)

    def _examine(self, registration: Registration, overdue: bool) -> bool:
        held = self._held(registration.life)
        if self._horse_lives(registration, held, overdue):
            return False
        if self._worker is None and self._needs_a_worker(held):
            return False
        report = self._report(registration)
        # A job that is still held is requeued even if the report is sealed.
        job = self._requeue_held_job(registration, held)
        if report is not None and report.sealed:
            sealed = amended(report, job)
        else:
            last_heartbeat: Any = self._connection.zscore(HEARTBEATS_KEY, registration.life)
            kills, process = oom_kills(), registration.process
            known = kills is not None and registration.oom_kills is not None and process.local
            sealed = closed(
                report or self._blank(registration),
                Findings(
                    found_at=utc_now(),
                    found_by=self._name,
                    last_heartbeat=last_heartbeat,
                    job=job,
                    oom_killed=bool(known and (kills or 0) > (registration.oom_kills or 0)),
                ),
            )
        # First where it is safe, whether it came from the archive or from the spool.
        Journal(self._connection).write(sealed)
        archived = archive.store(sealed, seconds=ARCHIVE_SECONDS)
        deregister_from_rq(self._connection, registration)
        queue_keys = [f"{QUEUE_PREFIX}{name}" for name in registration.queues]
        release_seats(self._connection, registration.life, queue_keys)
        deregister(self._connection, registration, archived=archived, job_settled=True)
        name = one_line(registration.worker)
        if report is not None and report.sealed:
            if job is not None:
                logger.warning(log.JOB_LEFT_BEHIND, name, one_line(job.id), job.outcome)
            return True
        logger.warning(log.REPORT_CLOSED, name, one_line(sealed.notes) or sealed.outcome)
        return True

    def _held(self, life: str) -> dict[str, str]:
        """Its job in flight; empty if that cannot be read."""
        try:
            found: Any = self._connection.hgetall(HELD_KEY.format(life))
            held = held_fields(found)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            logger.warning(log.HELD_WRONG_TYPE, one_line(life))
            self._connection.delete(HELD_KEY.format(life))
            return {}
        return held if {"job", "queue"} <= held.keys() and held["queue"].startswith(QUEUE_PREFIX) else {}

    def _horse_lives(self, registration: Registration, held: dict[str, str], overdue: bool) -> bool:
        """Whether its horse still runs the job. It notices its worker's death and ends; see ``parent_death``."""
        pid = held.get("horse", "")
        if not (pid.isascii() and pid.isdecimal() and len(pid) <= 10):
            return False
        worker = registration.process
        horse = Process(worker.machine, int(pid), held.get("horse_started", ""), worker.host)
        return horse.local and not horse.dead(overdue=overdue)

    def _report(self, registration: Registration) -> ShutdownReport | None:
        """Its latest report; if Redis was unreachable at its end, that is in the archive or in the spool."""
        spool = Spool(self._settings.spool_dir)
        archive.archive_pending(spool, ARCHIVE_SECONDS)
        stored = bounded(lambda: _stored(registration.life), ARCHIVE_SECONDS).value
        written = self._written(registration.life)
        if stored is None and (written is None or not written.sealed):
            # The database may be unreachable too: what the spool has is newer than the journal's open entry.
            stored = next((each for each in _spooled(spool) if each.id == registration.life), None)
        if stored is None or (written is not None and knows_more(written, stored)):
            return written
        return stored

    def _written(self, life: str) -> ShutdownReport | None:
        """Its journal entry."""
        text: Any = self._connection.hget(JOURNAL_KEY, life)
        if text is None:
            return None
        try:
            return report_json.load(text)
        except UnreadableReport as error:
            Journal(self._connection).set_aside(life, str(error))
            return None

    def _blank(self, registration: Registration) -> ShutdownReport:
        return ShutdownReport(
            id=registration.life,
            worker=registration.worker,
            hostname="",
            pid=registration.process.pid,
            queues=registration.queues,
            worker_class="",
            started_at=utc_now(),
        )

    def _origin(self, job_id: str) -> str:
        """The queue in the job's hash; empty if there is none."""
        try:
            origin: Any = self._connection.hget(Job.key_for(job_id), "origin")
        except ResponseError:
            return ""  # Not a job.
        return (origin or b"").decode("utf-8", "replace")

    def _needs_a_worker(self, held: dict[str, str]) -> bool:
        """Whether only a worker can decide or carry out what becomes of the job."""
        if "horse" not in held:
            return False  # Not started: it is requeued in any case.
        if held.get("policy") != "requeue":
            return True  # It is to be failed, or an earlier version took it and did not write its policy.
        fields = (INTERRUPTIONS_FIELD, "graceful_interruptions_before_progress")
        try:
            found: Any = self._connection.hmget(Job.key_for(held["job"]), fields)
        except ResponseError:
            return False  # It is no job, and is gone for the script too.
        count, before_progress = map(counter, found)
        if before_progress > count:
            before_progress = 0
        return count + 1 - before_progress > self._settings.max_interruptions

    def _requeue_held_job(self, registration: Registration, held: dict[str, str]) -> InFlightJob | None:
        """Requeue the job that it held at the front of its queue, as an interrupted one."""
        if "job" not in held:
            return None
        job_id, queue_key = held["job"], held["queue"]
        origin = self._origin(job_id) or queue_key.removeprefix(QUEUE_PREFIX)
        if undo(self._connection, registration.life, registration.worker, job_id, origin):
            logger.warning(log.FAILURE_UNDONE, one_line(registration.worker), one_line(job_id))
        execution = rq_private.latest_execution(self._connection, job_id, origin, registration.worker)
        # A job that was taken and not started yet has lost nothing by it.
        why = Why.WORKER_DIED if "horse" in held else Why.NOT_STARTED
        job_held = HeldJob(registration.life, job_id, origin, queue_key, execution)
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
        given = requeue(self._connection, job_held, why, self._settings, policy=policy)
        in_flight = InFlightJob(job_id, held.get("function", "?"), origin, interruptions=given.interruptions)
        if given.must_fail:
            return self._fail(in_flight, job, job_held, given)
        if given.found == "not held":
            return None  # Another worker has it.
        return replace(in_flight, outcome=given.outcome(why))

    def _fail(self, in_flight: InFlightJob, job: Job | None, held: HeldJob, given: Requeued) -> InFlightJob | None:
        """Fail a job that is not to be requeued; its callbacks take a worker to run them."""
        worker = self._worker
        if worker is None or job is None:
            return None  # It stays held until a worker comes by; see _needs_a_worker.
        queue: Queue = worker.queue_class.from_queue_key(
            held.queue_key, connection=self._connection, job_class=worker.job_class, serializer=worker.serializer
        )
        fail_job.fail(worker, job, queue, held.execution, given.interruptions, by_policy=given.by_policy)
        return replace(in_flight, outcome=JobOutcome.INTERRUPTION_FAILED)


def reap(connection: redis.Redis, settings: Settings, name: str) -> int:
    """Close the reports of dead workers and requeue their jobs, from a process that is no worker.

    For the admin and ``archive_reports``, where no worker may be alive. Nothing is unpickled: a job that may have to
    be failed is left until a worker starts.

    Args:
        connection: a client of the server that they are on; its timeouts bound the time that this takes.
        settings: the settings in effect.
        name: who reaps, for the reports.

    Returns:
        how many reports were closed.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return Reaper(connection, name, f"{name} {uuid.uuid4().hex}", settings).reap(observe(connection))


def _spooled(spool: Spool) -> list[ShutdownReport]:
    try:
        return spool.entries()
    except OSError:
        return []  # archive_pending() has logged why.


def _stored(life: str) -> ShutdownReport | None:
    """Runs in its own thread, so the connections that it closes are its own."""
    try:
        return archive.read(life)
    finally:
        connections.close_all()
