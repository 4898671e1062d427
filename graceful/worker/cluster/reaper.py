"""What a worker does for those that died without a word: their job goes back, their report is closed.

Exactly one reaper does it at a time, under a lock; each step can be repeated, so it does no harm if that one dies
over it as well.
"""

from __future__ import annotations

import logging
import time
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
from graceful.worker.cluster.abandoned import undo
from graceful.worker.cluster.deregister import forget
from graceful.worker.cluster.heartbeat import BEATS_KEY, MACHINE_KEY, WORKERS_KEY, Heard, Registration, leave, raw
from graceful.worker.cluster.process_identity import Process, machine, oom_kills
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from graceful.worker.queue.fetch import HELD_KEY, texts
from graceful.worker.queue.lua import counter
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD, NOT_ONCE, Requeued, requeue, requeue_unread
from graceful.worker.shutdown.exit import bounded

log = logging.getLogger("graceful.worker")
LOCK_KEY = "graceful:autopsy:{}"
LOCK_SECONDS = 30
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix
FREE_SECONDS = 6.0
"""How long a start waits for another reaper that is at work on a worker of the same name."""
ARCHIVE_SECONDS = 2.0


class Reaper:
    """Looks after dead workers, in the name of a living one, or of a process that is none.

    Args:
        connection: a client of the server that they are on.
        name: who it is, for the reports: ``"worker w1"``.
        life: the living worker's life, or any other name that is its own.
        settings: the settings that hold for it.
        worker: the living worker. Without one no job is unpickled, so a job whose payload it takes to decide about is
            left to a worker, with the report of the one that held it.
    """

    def __init__(
        self, connection: redis.Redis, name: str, life: str, settings: Settings, worker: BaseWorker | None = None
    ) -> None:
        self._connection = connection
        self._name = name
        self._life = life
        self._settings = settings
        self._worker = worker

    def look(self, heard: Heard) -> int:
        """Close the reports of those that are dead.

        Args:
            heard: lives that may be.

        Returns:
            how many were.

        Raises:
            redis.exceptions.RedisError: Redis did not answer; what was begun is done by the next one.
        """
        suspects = [life for life in dict.fromkeys((*heard.neighbours, *heard.overdue)) if life != self._life]
        closed_reports = 0
        for life in suspects:
            try:
                closed_reports += self._look_at(life, overdue=life in heard.overdue)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                raise
            except Exception:
                # Whatever is said of it that cannot be understood must not keep the living from their work.
                log.exception("The report of worker %r could not be closed", life)
        return closed_reports

    def _look_at(self, life: str, *, overdue: bool) -> int:
        registration = self._registration(life)
        if registration is None:
            # Half removed, or not ours: nobody can say anything of it any more.
            set_aside.entry(self._connection, WORKERS_KEY, raw(life), "no registration of a worker")
            self._connection.zrem(BEATS_KEY, raw(life))
            self._connection.srem(MACHINE_KEY.format(machine()), raw(life))
            return 0
        if registration.process.dead(overdue=overdue):
            return self._under_lock(registration, overdue=overdue)
        return 0

    def close(self, life: str) -> None:
        """Close the report of a worker that is known to be dead; nothing happens if that has been done.

        Raises:
            redis.exceptions.RedisError: Redis did not answer; the next reaper will do it.
        """
        registration = self._registration(life)
        if registration is not None:
            self._under_lock(registration, overdue=True)

    def free_name(self, name: str, hostname: str, stopped: Callable[[], bool]) -> None:
        """Close the report of a dead worker of this very name, so that RQ lets it be used again.

        A container that is started again has the host's name but other pids: a worker of the same name on a host of
        the same name has to be its predecessor.
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
                log.info("Worker %s: its predecessor %s is dead", name, one_line(registration.life))
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
        key = LOCK_KEY.format(registration.life)
        if not self._connection.set(key, self._life, nx=True, ex=LOCK_SECONDS):
            if self._connection.ttl(key) == -1:
                self._connection.expire(key, LOCK_SECONDS)  # Not set by us: it would be locked for ever.
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
        # A job that is still held after the report was sealed goes back all the same.
        job = self._take_job_back(registration, held)
        if report is not None and report.sealed:
            sealed = amended(report, job)
            if sealed != report:
                Journal(self._connection).write(sealed)
        else:
            beat: Any = self._connection.zscore(BEATS_KEY, registration.life)
            kills, process = oom_kills(), registration.process
            known = kills is not None and registration.oom_kills is not None and process.local
            sealed = closed(
                report or self._blank(registration),
                Findings(
                    found_at=utc_now(),
                    found_by=self._name,
                    last_beat=beat,
                    job=job,
                    oom_killed=bool(known and (kills or 0) > (registration.oom_kills or 0)),
                ),
            )
            Journal(self._connection).write(sealed)
        archived = archive.store(sealed, seconds=ARCHIVE_SECONDS)
        forget(self._connection, registration)
        leave(self._connection, registration, archived=archived, job_seen_to=True)
        name = one_line(registration.worker)
        if report is not None and report.sealed:
            if job is not None:
                log.warning("Worker %s had left job %s in its hands: %s", name, one_line(job.id), job.outcome)
            return True
        log.warning(
            "Worker %s died without a word; its report is closed: %s",
            name,
            one_line(sealed.notes) or sealed.outcome,
        )
        return True

    def _held(self, life: str) -> dict[str, str]:
        """What it held; nothing where that cannot be read."""
        try:
            found: Any = self._connection.hgetall(HELD_KEY.format(life))
            held = texts(found)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            log.warning("What worker %s held is no hash, and is removed", one_line(life))
            self._connection.delete(HELD_KEY.format(life))
            return {}
        return held if {"job", "queue"} <= held.keys() and held["queue"].startswith(QUEUE_PREFIX) else {}

    def _horse_lives(self, registration: Registration, held: dict[str, str], overdue: bool) -> bool:
        """Whether its horse is still at the job. It learns of its worker's death by itself, and ends; see orphan."""
        pid = held.get("horse", "")
        if not (pid.isascii() and pid.isdecimal() and len(pid) <= 10):
            return False
        worker = registration.process
        horse = Process(worker.machine, int(pid), held.get("horse_started", ""), worker.host)
        return horse.local and not horse.dead(overdue=overdue)

    def _report(self, registration: Registration) -> ShutdownReport | None:
        """The latest that is known of it. Where Redis was away at its end, that is in the archive or in the spool."""
        archive.archive_pending(Spool(self._settings.spool_dir), ARCHIVE_SECONDS)
        stored = bounded(lambda: _stored(registration.life), ARCHIVE_SECONDS).value
        written = self._written(registration.life)
        if stored is None or (written is not None and knows_more(written, stored)):
            return written
        return stored

    def _written(self, life: str) -> ShutdownReport | None:
        """What the journal has of it."""
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
        """The queue that a job says it belongs to; empty where it does not say."""
        try:
            origin: Any = self._connection.hget(Job.key_for(job_id), "origin")
        except ResponseError:
            return ""  # It is no job.
        return (origin or b"").decode("utf-8", "replace")

    def _needs_a_worker(self, held: dict[str, str]) -> bool:
        """Whether what becomes of the job depends on what only a worker may read, or has to be done by one."""
        if "horse" not in held:
            return False  # Not started: it goes back, whatever it is.
        if held.get("policy") != "requeue":
            return True  # It is to fail, or was taken by a version that does not say.
        fields = (INTERRUPTIONS_FIELD, "graceful_interruptions_before_progress")
        try:
            found: Any = self._connection.hmget(Job.key_for(held["job"]), fields)
        except ResponseError:
            return False  # It is no job, and is gone for the script too.
        count, before_progress = map(counter, found)
        if before_progress > count:
            before_progress = 0
        return count + 1 - before_progress > self._settings.max_interruptions

    def _take_job_back(self, registration: Registration, held: dict[str, str]) -> InFlightJob | None:
        """Put the job that it held at the front of its queue, as an interrupted one."""
        if "job" not in held:
            return None
        job_id, queue_key = held["job"], held["queue"]
        origin = self._origin(job_id) or queue_key.removeprefix(QUEUE_PREFIX)
        if undo(self._connection, registration.life, registration.worker, job_id, origin):
            log.warning(
                "Worker %s: job %s had been failed by RQ's clean-up; undone",
                one_line(registration.worker),
                one_line(job_id),
            )
        execution = rq_private.latest_execution(self._connection, job_id, origin, registration.worker)
        # A job that was taken and not started yet has lost nothing by it.
        started = "horse" in held
        worker = self._worker
        if worker is None:
            most = self._settings.max_interruptions if started else None
            given = requeue_unread(self._connection, registration.life, job_id, origin, queue_key, execution, most)
            in_flight = InFlightJob(job_id, held.get("function", "?"), origin, interruptions=given.interruptions)
            return self._told(given, in_flight, started)
        queue: Queue = worker.queue_class.from_queue_key(
            queue_key, connection=self._connection, job_class=worker.job_class, serializer=worker.serializer
        )
        try:
            job: Job = worker.job_class.fetch(job_id, connection=self._connection, serializer=worker.serializer)
        except NoSuchJobError:
            queue.intermediate_queue.remove(job_id)
            return None
        except (RedisError, OSError):
            raise
        except Exception:
            # Its data cannot be read. RQ's maintenance fails it, out of the intermediate queue.
            log.exception(
                "Job %s, which worker %s held, cannot be read", one_line(job_id), one_line(registration.worker)
            )
            return None
        # The job itself is never unpickled here; its horse has written down what it says (fetch.describe). That of a
        # version that does not write it down has not: a job that must not be started again would be, so a child asks.
        policy = held.get("policy") or (fail_job.policy(worker, job) if started else None)
        fails = started and (policy or self._settings.interrupted_jobs) == "fail"
        most = NOT_ONCE if fails else self._settings.max_interruptions
        given = requeue(worker, registration.life, job, queue_key, execution, most if started else None)
        in_flight = InFlightJob(job_id, held.get("function", "?"), queue.name, interruptions=given.interruptions)
        if given.too_many:
            fail_job.fail(worker, job, queue, execution, given.interruptions, by_policy=fails)
            return replace(in_flight, outcome=JobOutcome.INTERRUPTION_FAILED)
        return self._told(given, in_flight, started)

    def _told(self, given: Requeued, in_flight: InFlightJob, started: bool) -> InFlightJob | None:
        if given.found in ("not held", "gone"):
            return None  # It is another's, or nobody can say what became of it.
        if not given.back:
            return replace(in_flight, outcome=given.own_end)
        return replace(in_flight, outcome=JobOutcome.KILLED if started else JobOutcome.RETURNED)


def _stored(life: str) -> ShutdownReport | None:
    """In a thread of its own, so the connections that it closes are its own too."""
    try:
        return archive.read(life)
    finally:
        connections.close_all()
