"""Where a job's cursors are kept: a field of the job's own hash in Redis, so that they live and go with the job."""

from __future__ import annotations

import logging

import redis
from redis.exceptions import RedisError

from graceful.resume.cursors import FIELD
from graceful.worker.queue.lua import WHOLE

log = logging.getLogger("graceful.worker")

SAVE_SCRIPT = (
    WHOLE
    + """
-- A job that was deleted meanwhile must not come back as a hash with nothing but its cursors.
local interruptions = whole(redis.call('HGET', KEYS[1], 'graceful_interruptions'))
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  -- It got on since it was interrupted: GRACEFUL_MAX_INTERRUPTIONS is for jobs that do not (requeue.py).
  if interruptions > 0 then
    redis.call('HSET', KEYS[1], 'graceful_interruptions_before_progress', string.format('%d', interruptions))
  end
end
"""
)


class CursorStore:
    """The :class:`graceful.resume.cursors.Store` of a job.

    Args:
        connection: a Redis client.
        job_key: key of the job's hash.
    """

    def __init__(self, connection: redis.Redis, job_key: str | bytes) -> None:
        self.connection = connection
        self.job_key = job_key

    def load(self) -> str | None:
        """As in ``Store``.

        Raises:
            redis.exceptions.RedisError: Redis is away: without its cursors the job must not begin.
        """
        text = self.connection.hget(self.job_key, FIELD)
        return text.decode() if isinstance(text, bytes) else text

    def save(self, text: str) -> bool:
        """As in ``Store``."""
        try:
            self.connection.eval(SAVE_SCRIPT, 1, self.job_key, FIELD, text)
        except RedisError as error:
            log.warning("The cursors of %s could not be saved: %s", self.job_key, error)
            return False
        return True

    def clear(self) -> None:
        """As in ``Store``.

        Raises:
            redis.exceptions.RedisError: Redis is away: were the job stored as finished all the same, RQ's ``Repeat``
                would find the old cursors.
        """
        self.connection.hdel(self.job_key, FIELD)
