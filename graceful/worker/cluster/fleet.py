"""The living workers, as their journal entries, heartbeats and held jobs in Redis show them.

Reads only, never unpickles a job, and judges nobody: what is shown as silent here is for the reaper to decide about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from rq.job import Job

from graceful.core.phases import Phase
from graceful.core.records import ShutdownReport
from graceful.exceptions import CursorMismatch
from graceful.jobs.progress import Progress, progress_in
from graceful.reports.deploys.records import Running
from graceful.reports.journal import Journal
from graceful.resume.cursors import FIELD, read
from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS
from graceful.worker.cluster.registration import HEARTBEATS_KEY
from graceful.worker.queue.fetch import HELD_KEY, held_fields

MOST_CURSOR_BYTES = 256 * 1024
BATCH = 200


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker whose report is not sealed yet.

    Args:
        report: its report as far as it has got: name, release, phase, grace period.
        beat_at: its last heartbeat by the server's clock, None if there was none.
        silent: whether that is overdue, so that a reaper will look at it.
        job: its job in flight.
    """

    report: ShutdownReport
    beat_at: datetime | None = None
    silent: bool = False
    job: Running | None = None

    @property
    def deadline(self) -> datetime | None:
        """When its process will be over; None while no shutdown was requested, or the grace period is unknown."""
        requested, period = self.report.requested_at, self.report.grace.period
        return None if requested is None or period is None else requested + timedelta(seconds=period)


def state_of(worker: LiveWorker) -> str:
    """What a worker is at, in one word; of the exit hooks, which one runs."""
    report = worker.report
    if worker.silent:
        return "silent"
    if report.phase is Phase.RUNNING:
        return "quiet" if report.quiet else "idle" if worker.job is None else "busy"
    return str(report.phase)


def fleet(connection: redis.Redis) -> list[LiveWorker]:
    """The workers on one server whose reports are not sealed, the oldest first.

    Args:
        connection: a client of the server; its timeouts are the caller's.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    reports = Journal(connection).read().open
    workers = []
    for start in range(0, len(reports), BATCH):
        workers += _with_jobs(connection, reports[start : start + BATCH])
    return workers


def _with_jobs(connection: redis.Redis, reports: tuple[ShutdownReport, ...]) -> list[LiveWorker]:
    pipeline = connection.pipeline(transaction=False)
    pipeline.time()
    pipeline.zmscore(HEARTBEATS_KEY, [report.id for report in reports])
    for report in reports:
        pipeline.hgetall(HELD_KEY.format(report.id))
    # One key of another type must not hide the whole fleet.
    now, scores, *answers = pipeline.execute(raise_on_error=False)
    beats = scores if isinstance(scores, list) else [None] * len(reports)
    held = [held_fields(each) if isinstance(each, dict) else {} for each in answers]
    jobs = _jobs(connection, held)
    workers = []
    for report, beat, job in zip(reports, beats, jobs, strict=True):
        score = beat if isinstance(beat, float) and 0 <= beat < 2**35 else None
        beat_at = None if score is None else datetime.fromtimestamp(score, UTC)
        silent = score is None or now[0] - score > OVERDUE_SECONDS
        workers.append(LiveWorker(report, beat_at, silent, job))
    return workers


def _jobs(connection: redis.Redis, held: list[dict[str, str]]) -> list[Running | None]:
    """The jobs in these fields of ``graceful:held:*``; a job that is over by now is none."""
    pipeline = connection.pipeline(transaction=False)
    for fields in held:
        if "job" in fields:
            key = Job.key_for(fields["job"])
            pipeline.hmget(key, "status", "started_at")
            pipeline.hstrlen(key, FIELD)
    answers = iter(pipeline.execute(raise_on_error=False))
    found: list[Running | None] = []
    for fields in held:
        answer, length = (next(answers), next(answers)) if "job" in fields else (None, None)
        status, started = answer if isinstance(answer, list) else (None, None)
        if text_of(status) != "started":
            found.append(None)
            continue
        saved = length if isinstance(length, int) else 0
        progress = _progress(connection, fields["job"]) if 0 < saved <= MOST_CURSOR_BYTES else None
        queue = fields.get("queue", "").removeprefix("rq:queue:")
        done, total = (None, None) if progress is None else (progress.done, progress.total)
        found.append(Running(fields["job"], fields.get("function", ""), queue, moment_of(started), done, total))
    return found


def _progress(connection: redis.Redis, job_id: str) -> Progress | None:
    try:
        loops = progress_in(read(connection.hget(Job.key_for(job_id), FIELD)))
    except (CursorMismatch, KeyError, TypeError, AttributeError, ValueError):
        return None  # Of another version, or not ours.
    return loops[-1] if loops else None


def text_of(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def moment_of(value: Any) -> datetime | None:
    """RQ's form of a time (``rq.utils.utcformat``): ISO 8601 that ends in Z."""
    try:
        moment = datetime.fromisoformat(text_of(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
