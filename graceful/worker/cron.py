"""RQ's cron scheduler, so that a stop or a restart neither loses a tick nor doubles one.

RQ's own raises out of its signal handler, in the middle of whatever it does, and knows when each job was enqueued last
only as long as it runs (``CronScheduler.start``, read in 2.6.1 to 3.0.0). Here the handler only records, and that time
is in Redis: a job is enqueued in the same transaction that writes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from django_rq.cron import DjangoCronScheduler
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError
from rq.cron import CronJob
from rq.queue import Queue

from graceful.core.text import one_line
from graceful.reports.set_aside import retrying
from graceful.worker.compat import rq_cron
from graceful.worker.shutdown import os_signals

log = logging.getLogger("graceful.worker")
STOPPING = "Cron scheduler %s: stopping"
CAUGHT_UP = "Cron scheduler %s: %s was due %.0f s ago, enqueued once"
UNREACHABLE = "Cron scheduler %s: Redis is unreachable, next try in %.0f s: %s"
NOT_REMOVED = "Cron scheduler %s: not removed from RQ's list, Redis is unreachable: %s"

CRON_KEY = "graceful:cron"
"""Hash: which cron job was enqueued last when, in seconds since 1970."""
KEPT_SECONDS = 400 * 24 * 3600
"""Longer than the longest time between two ticks of a cron expression that people use."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
LATE_SECONDS = 5.0
"""A tick that comes so late is told of."""


class GracefulCronScheduler(DjangoCronScheduler):
    """django-rq's scheduler with a loop of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[str, datetime] = {}
        """When each job was enqueued last, as far as this process knows, by its identity."""

    def run(self, inbox: os_signals.Inbox) -> None:
        """Enqueue jobs when they are due, until a stop signal comes.

        Args:
            inbox: what is asked of this process.
        """
        registered, pause = False, FIRST_PAUSE
        while not stop_asked(inbox):
            try:
                if not registered:
                    self._register()
                    registered = True
                if self.enqueue_jobs():
                    self.save()
                self.heartbeat()
                seconds, pause = self.calculate_sleep_interval(), FIRST_PAUSE
            except RedisError as error:
                log.error(UNREACHABLE, self.name, pause, error)
                seconds, pause = pause, min(2 * pause, LONGEST_PAUSE)
            while inbox.next() is not None:
                pass  # Only stop signals mean something here.
            if not stop_asked(inbox):
                inbox.wait(seconds)
        log.info(STOPPING, self.name)
        if registered:
            try:
                rq_cron.deregister(self)
            except RedisError as error:
                log.warning(NOT_REMOVED, self.name, error)

    def _register(self) -> None:
        # Again where the reply was lost: the name is this process's own.
        rq_cron.deregister(self)
        self.register_birth()

    def enqueue_jobs(self) -> list[CronJob]:
        """As RQ's: the jobs that were due and are enqueued now.

        What came due while no scheduler ran is enqueued once, however many ticks that were.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable. What is due stays due.
        """
        return [job for identity, job in self._by_identity().items() if self._enqueue_if_due(identity, job)]

    def _by_identity(self) -> dict[str, CronJob]:
        """The jobs by what they are: the same in another process, and after a restart, until somebody changes them."""
        found: dict[str, CronJob] = {}
        alike: Counter[str] = Counter()
        for job in self.get_jobs():
            what = [job.queue_name, job.func_name, getattr(job, "name", ""), job.interval, job.cron]
            described = json.dumps([*what, repr(job.args), repr(job.kwargs)])
            alike[described] += 1
            found[hashlib.sha256(f"{described}{alike[described]}".encode()).hexdigest()[:32]] = job
        return found

    def _enqueue_if_due(self, identity: str, job: CronJob) -> bool:
        # Redis is asked even of a job that never ran here: another process may have enqueued it a moment ago.
        if identity in self._known and not job.should_run():
            return False
        return retrying(self.connection, (CRON_KEY,), lambda: self._transaction(identity, job))

    def _transaction(self, identity: str, job: CronJob) -> bool:
        """Enqueue a job and write down when, unless another process has done so meanwhile.

        A reply that is lost makes redis-py raise ``WatchError``; then Redis is asked whether it was done.
        """
        while True:
            with self.connection.pipeline() as pipeline:
                try:
                    pipeline.watch(CRON_KEY)
                    last = _moment(pipeline.hget(CRON_KEY, identity))
                    if last is not None and last != self._known.get(identity):
                        self._remember(identity, job, last)
                    at, first = datetime.now(UTC), identity not in self._known
                    if first and job.cron:  # From now on it has ticks, also if this process is gone at the first.
                        self._known[identity] = at
                        pipeline.multi()
                        _write(pipeline, identity, at)
                        pipeline.execute()
                        return False
                    if not job.should_run():
                        return False
                    pipeline.multi()
                    queue = Queue(job.queue_name, connection=self.connection)
                    function: Any = job.func
                    enqueued = queue.enqueue(
                        function, args=job.args, kwargs=job.kwargs, pipeline=pipeline, **job.job_options
                    )
                    rq_cron.note(job, enqueued, pipeline)
                    _write(pipeline, identity, at)
                    pipeline.execute()
                except WatchError:
                    continue
            late = (at - due).total_seconds() if (due := rq_cron.due(job)) else 0.0
            if late > LATE_SECONDS:
                log.info(CAUGHT_UP, self.name, one_line(job.func_name), late)
            self._remember(identity, job, at)
            return True

    def _remember(self, identity: str, job: CronJob, at: datetime) -> None:
        self._known[identity] = at
        rq_cron.set_enqueued(job, at)


def _write(pipeline: Pipeline, identity: str, at: datetime) -> None:
    pipeline.hset(CRON_KEY, identity, repr(at.timestamp()))
    pipeline.expire(CRON_KEY, KEPT_SECONDS)


def stop_asked(inbox: os_signals.Inbox) -> bool:
    """Whether a stop signal has come."""
    stops = {signum.name for signum in os_signals.STOP_SIGNALS}
    return any(received.name in stops for received in inbox.received)


def _moment(value: bytes | str | None) -> datetime | None:
    """A time that somebody has written down; None for one that is none, or lies in the future."""
    try:
        found = datetime.fromtimestamp(float(value or "nan"), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found < datetime.now(UTC) + timedelta(days=1) else None
