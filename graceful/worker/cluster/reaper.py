"""The reaper: requeues the jobs of workers that were killed, and closes their reports.

One reaper at a time examines a dead worker, under a lock. Each step can be repeated, so a reaper may be killed too.
"""

from __future__ import annotations

import bisect
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import redis
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.post_mortem import Findings, amended, closed
from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.reports import archive, set_aside
from graceful.reports.journal import Journal
from graceful.worker.cluster import log
from graceful.worker.cluster.dead_workers_job import QUEUE_PREFIX, DeadWorkersJob
from graceful.worker.cluster.deregister import deregister, deregister_from_rq
from graceful.worker.cluster.heartbeat import Peers, observe
from graceful.worker.cluster.last_report import ARCHIVE_SECONDS, blank_report, last_report
from graceful.worker.cluster.process_identity import Liveness, Process, machine
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY, Registration, raw
from graceful.worker.queue.fetch import AUTOPSY_KEY
from graceful.worker.queue.wait import release_seats

logger = logging.getLogger("graceful.worker")
LOCK_SECONDS = 30
WATCHED = 3
"""How many living workers of its machine a worker looks at."""
FREE_SECONDS = 6.0
"""How long a start waits for another reaper that is closing the report of a worker of the same name."""


class Reaper:
    """Examines dead workers, on behalf of a living worker or of another process.

    Args:
        connection: a client of the server that they are on.
        name: who reaps, for the reports: ``"worker w1"``.
        worker_id: the living worker's id (see :mod:`.registration`), or another unique name.
        settings: the settings in effect.
        worker: the living worker. Without one, a job that may have to be failed is left to a worker, and so is the
            report of the worker that held it: failing unpickles the job.
    """

    def __init__(
        self, connection: redis.Redis, name: str, worker_id: str, settings: Settings, worker: BaseWorker | None = None
    ) -> None:
        self._connection = connection
        self._name = name
        self._worker_id = worker_id
        self._settings = settings
        self._worker = worker
        self._living: dict[str, Process] = {}

    def reap(self, peers: Peers) -> int:
        """Close the reports of the dead ones among them, and requeue their jobs.

        Args:
            peers: the workers to examine.

        Returns:
            how many reports were closed.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable; the next reaper finishes what was begun.
        """
        closed_reports, living = 0, {}
        for worker_id in (*peers.overdue, *self._watched(peers.neighbours)):
            overdue = worker_id in peers.overdue
            try:
                closed_one, alive = self._reap_one(worker_id, overdue=overdue)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                raise
            except Exception:
                # One entry that cannot be handled must not stop a living worker.
                logger.exception(log.NOT_CLOSED, one_line(worker_id))
                continue
            closed_reports += closed_one
            if alive is not None:
                living[worker_id] = alive
            if len(living) == WATCHED and self._worker is not None:
                break
        self._living = living
        return closed_reports

    def _watched(self, neighbours: Sequence[str]) -> list[str]:
        """The workers of this machine, in the order of their ids, from the one behind this one on.

        A worker looks at them until it has seen three that live. So what the workers of a machine ask Redis grows with
        their number, not with its square, and a dead one is seen by the three living ones before it; should they all
        hang, by anybody once its heartbeat is overdue.
        """
        behind = bisect.bisect(others := sorted({*neighbours} - {self._worker_id}), self._worker_id)
        return others[behind:] + others[:behind]

    def _reap_one(self, worker_id: str, *, overdue: bool) -> tuple[int, Process | None]:
        """Close the report of one that is dead.

        Returns:
            how many reports were closed, and its process if that certainly lives.
        """
        before = self._living.get(worker_id)
        if before is not None and before.liveness is Liveness.ALIVE and not overdue:
            return 0, before
        registration = self._registration(worker_id)
        if registration is None:
            # Half removed, or not ours: nothing more is known of it.
            set_aside.entry(self._connection, WORKERS_KEY, raw(worker_id), "no registration of a worker")
            self._connection.zrem(HEARTBEATS_KEY, raw(worker_id))
            self._connection.srem(MACHINE_KEY.format(machine()), raw(worker_id))
            return 0, None
        if registration.process.dead(overdue=overdue):
            return self._under_lock(registration, overdue=overdue), None
        return 0, registration.process if registration.process.liveness is Liveness.ALIVE else None

    def close(self, worker_id: str) -> None:
        """Close the report of a worker that is known to be dead; nothing happens if it is closed.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable; the next reaper will do it.
        """
        registration = self._registration(worker_id)
        if registration is not None:
            self._under_lock(registration, overdue=True)

    def free_name(self, name: str, hostname: str, stopped: Callable[[], bool]) -> None:
        """Close the report of a dead worker of this name, so that RQ accepts the name again.

        A restarted container keeps its host name but has a new pid namespace: a worker of the same name on a host of
        the same name is the one that ran before.
        """
        if self._worker is not None and not self._connection.exists(self._worker.key):
            return  # RQ accepts it as it is, and nobody's entry need be read.
        for worker_id, text in self._connection.hscan_iter(WORKERS_KEY):
            registration = Registration.from_json(text)
            if registration is None:
                set_aside.entry(self._connection, WORKERS_KEY, worker_id, "no registration of a worker")
                continue
            if registration.worker != name or registration.worker_id == self._worker_id:
                continue
            report = last_report(self._connection, self._settings, registration)
            same_host = report is not None and report.hostname == hostname and not registration.process.local
            if registration.process.dead(overdue=False) or same_host:
                logger.info(log.NAME_TAKEN, name, one_line(registration.worker_id))
                until = Deadline.after(FREE_SECONDS)
                while not self._under_lock(registration, overdue=False) and self._registration(registration.worker_id):
                    if until.expired or stopped():
                        break
                    time.sleep(0.05)

    def _registration(self, worker_id: str) -> Registration | None:
        text: Any = self._connection.hget(WORKERS_KEY, raw(worker_id))
        registration = Registration.from_json(text) if text else None
        return registration if registration is not None and registration.worker_id == worker_id else None

    def _under_lock(self, registration: Registration, *, overdue: bool) -> int:
        key = AUTOPSY_KEY.format(registration.worker_id)
        if not self._connection.set(key, self._worker_id, nx=True, ex=LOCK_SECONDS):
            if self._connection.ttl(key) == -1:
                self._connection.expire(key, LOCK_SECONDS)  # Not set by us: it would never expire.
            return 0
        try:
            return int(self._examine(registration, overdue))
        finally:
            self._connection.delete(key)

    def _examine(self, registration: Registration, overdue: bool) -> bool:
        held = DeadWorkersJob(self._connection, self._settings, registration, self._worker)
        if held.horse_lives(overdue=overdue) or held.needs_a_worker():
            return False
        report = last_report(self._connection, self._settings, registration)
        # A job that is still held is requeued even if the report is sealed.
        job = held.requeue()
        if report is not None and report.sealed:
            sealed = amended(report, job)
        else:
            last_heartbeat: Any = self._connection.zscore(HEARTBEATS_KEY, registration.worker_id)
            sealed = closed(
                report or blank_report(registration),
                Findings(
                    found_at=utc_now(),
                    found_by=self._name,
                    last_heartbeat=last_heartbeat,
                    job=job,
                    oom_killed=held.oom_killed,
                ),
            )
        # First where it is safe, whether it came from the archive or from the spool.
        Journal(self._connection).write(sealed)
        archived = archive.store(sealed, seconds=ARCHIVE_SECONDS)
        deregister_from_rq(self._connection, registration)
        queue_keys = [f"{QUEUE_PREFIX}{name}" for name in registration.queues]
        release_seats(self._connection, registration.worker_id, queue_keys)
        deregister(self._connection, registration, archived=archived, job_settled=True)
        name = one_line(registration.worker)
        if report is not None and report.sealed:
            if job is not None:
                logger.warning(log.JOB_LEFT_BEHIND, name, one_line(job.id), job.outcome)
            return True
        logger.warning(log.REPORT_CLOSED, name, one_line(sealed.notes) or sealed.outcome)
        return True


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
