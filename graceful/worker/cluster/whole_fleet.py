"""The living workers on all servers, read in bounded time: for pages and commands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from redis import Redis
from redis.exceptions import RedisError
from rq.job import Job

from graceful.core.text import one_line
from graceful.reports.deploys.records import JobEnd, Member
from graceful.reports.deploys.rows import Living
from graceful.reports.sources import PAUSE_SECONDS, journals
from graceful.threads import Bounded
from graceful.worker.cluster.fleet import LiveWorker, fleet, moment_of, text_of

MOST_JOBS = 200
SHARED_SECONDS = 1.0
Found = dict[tuple[str, str], JobEnd]
"""By report and job: several shutdowns may have interrupted one job."""
log = logging.getLogger("graceful.worker")
NOT_READ = "The living workers could not be read: %s"


def living_workers(seconds: float) -> Living:
    """The living workers on all servers; what was not reached in time is missing, and said to be.

    Never raises. Redis is read in a thread of its own, since not all of its time-outs are ours.

    Args:
        seconds: for all servers.
    """
    reading = Bounded(lambda: _read(seconds))
    reading.wait(seconds)
    return reading.value or Living(known=False)


class PageFleet:
    """The living workers for pages: one reading at a time, shared by those who look at once, and a pause after one
    that failed."""

    def __init__(self) -> None:
        self.paused_until = 0.0
        self._running = Lock()
        self._last, self._fresh_until = Living(), 0.0

    def read(self, seconds: float) -> Living:
        """As :func:`living_workers`, at most ``SHARED_SECONDS`` old."""
        if time.monotonic() < self.paused_until or not self._running.acquire(timeout=seconds):
            return Living(known=False)
        try:
            if time.monotonic() < self._fresh_until:
                return self._last
            living = living_workers(seconds)
            if living.known:
                self._last, self._fresh_until = living, time.monotonic() + SHARED_SECONDS
            else:
                self.paused_until = time.monotonic() + PAUSE_SECONDS
            return living
        finally:
            self._running.release()


page_fleet = PageFleet()


def _read(seconds: float) -> Living:
    members: dict[str, Member] = {}  # Two queues' settings may name one server in two ways.

    def add(connection: Redis) -> None:
        members.update((each.report.id, member_of(each)) for each in fleet(connection))

    known = _on_each_server(seconds, add)
    return Living(tuple(members.values()), known)


def _on_each_server(seconds: float, do: Callable[[Redis], object]) -> bool:
    """Whether every server was reached."""
    try:
        everywhere = journals(seconds)
    except Exception as error:  # Wrong queue settings can raise anything.
        log.info(NOT_READ, error)
        return False
    reached = True
    for journal in everywhere:
        try:
            do(journal.connection)
        except RedisError as error:
            log.info(NOT_READ, one_line(str(error)))
            reached = False
        finally:
            journal.connection.close()
    return reached


def member_of(worker: LiveWorker) -> Member:
    """A living worker as a member of a deploy."""
    report = worker.report
    return Member(
        id=report.id,
        worker=report.worker,
        hostname=report.hostname,
        release=report.release,
        started_at=report.started_at,
        reason=report.reason,
        signal=report.signal,
        phase=report.phase,
        requested_at=report.requested_at,
        drained_at=report.drained_at,
        seconds=report.seconds,
        grace=report.grace,
        living=True,
        silent=worker.silent,
        quiet=report.quiet,
        job=worker.job,
    )


def where_now(jobs: Sequence[JobEnd], seconds: float) -> tuple[JobEnd, ...]:
    """Interrupted jobs of whose next run nothing was noted, with what their hashes in Redis say.

    Never raises and never unpickles a job.
    """
    asked = [job for job in jobs if job.again_at is None][:MOST_JOBS]
    if not asked:
        return tuple(jobs)
    found: Found = {}
    Bounded(lambda: _on_each_server(seconds, lambda connection: _ask(connection, asked, found))).wait(seconds)
    there = dict(found)
    return tuple(there.get((job.report, job.id), job) if job.again_at is None else job for job in jobs)


def _ask(connection: Redis, jobs: Sequence[JobEnd], found: Found) -> None:
    pipeline = connection.pipeline(transaction=False)
    for job in jobs:
        pipeline.hmget(Job.key_for(job.id), "status", "started_at", "ended_at", "worker_name")
    for job, answer in zip(jobs, pipeline.execute(raise_on_error=False), strict=True):
        if not isinstance(answer, list):
            continue
        status, started, ended, worker = (text_of(each) for each in answer)
        if not status:
            found.setdefault((job.report, job.id), replace(job, now="gone"))
            continue
        at, over = moment_of(started), moment_of(ended)
        if at is not None and job.stopped_at is not None and at > job.stopped_at:
            outcome = status if status in ("finished", "failed") else ""
            found[job.report, job.id] = replace(
                job, now=status, again_at=at, again_worker=worker, again_outcome=outcome, again_ended_at=over
            )
        else:
            found[job.report, job.id] = replace(job, now=status)
