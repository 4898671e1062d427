"""Reads the progress of the job in flight, for whoever shows it beside the worker's loop."""

from __future__ import annotations

import math
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.job import Job

from graceful.core.records import InFlightJob
from graceful.jobs.progress import JobInRedis, Progress, last_progress
from graceful.worker.compat.redis_connection import client_of_its_own

PROGRESS_SECONDS = 1.0
"""A job's progress is read at most so often."""


class ProgressReader:
    """Reads a job's progress over a client of its own, which is made when it is first asked.

    Args:
        connection: the worker's client.
        seconds: how long Redis may take.
        pause: seconds for which it does not ask again after an error.
    """

    def __init__(self, connection: Redis, seconds: float, pause: float = math.inf) -> None:
        self._connection = connection
        self._seconds = seconds
        self._pause = pause
        self._client: Any = None
        self._again_at = 0.0
        self._of = ""
        self._found: Progress | None = None

    def of(self, job: InFlightJob) -> Progress | None:
        """The job's progress as it was last read, None if it has none or Redis did not answer."""
        if job.id != self._of:
            self._of, self._found = job.id, None
        now = time.monotonic()
        if now < self._again_at:
            return self._found
        self._again_at = now + PROGRESS_SECONDS
        if self._client is None:
            self._client = client_of_its_own(self._connection, self._seconds)
        try:
            self._found = None if self._client is None else last_progress(_JobKey(self._client, job.id))
        except RedisError:
            self._again_at = now + self._pause
        return self._found


class _JobKey(JobInRedis):
    def __init__(self, connection: Any, job_id: str) -> None:
        self.connection = connection
        self._id = job_id

    @property
    def key(self) -> Any:
        return Job.key_for(self._id)
