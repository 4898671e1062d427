"""Poison jobs: those that failed because they were interrupted, or cost their workers, too often.

Read and requeued by web processes too, so nothing of a job is unpickled: RQ's own ``requeue`` loads the job, and so
unpickles ``job.meta``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from rq.job import Job
from rq.queue import Queue
from rq.utils import now, utcformat

from graceful.core import attempts
from graceful.core.attempts import Attempt
from graceful.core.untrusted import storable
from graceful.reports.set_aside import Script
from graceful.worker.compat import rq_private
from graceful.worker.queue.lua import ASK, counter
from graceful.worker.queue.requeue import ATTEMPTS_FIELD, INTERRUPTIONS_FIELD, POISON_KEY

MOST_SHOWN = 200
JOB_FIELDS = ("status", "origin", INTERRUPTIONS_FIELD, ATTEMPTS_FIELD)
QUEUES_KEY = Queue.redis_queues_keys
REQUEUED = "requeued"

COUNT_SCRIPT = (
    ASK
    + """
-- KEYS: poison jobs. ARGV: prefix of a job's key. Returns how many of them are failed.
local count = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if ask('HGET', ARGV[1] .. id, 'status') == 'failed' then
    count = count + 1
  end
end
return count
"""
)

REQUEUE_POISON_SCRIPT = (
    ASK
    + """
-- KEYS: job, failed registry of its queue, queue, poison jobs, queues. ARGV: job id, name of the queue, the time in
-- RQ's form. As RQ's Registry.requeue (2.6.1 to 3.0.0); the interruptions are counted anew.
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  return 'not poison'
end
redis.call('LLEN', KEYS[3])
local status = ask('HGET', KEYS[1], 'status')
if not status then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return 'gone'
end
if status ~= 'failed' then
  return status
end
if ask('HGET', KEYS[1], 'origin') ~= ARGV[2] then
  return 'moved'
end
local limited = ask('HGET', KEYS[1], 'rate_limit_key')
if limited and limited ~= '' then
  -- It has to acquire capacity first, which is RQ's to do (Queue._enqueue_rate_limited_job).
  return 'rate limited'
end
local ttl = tonumber(ask('HGET', KEYS[1], 'ttl') or '')
redis.call('ZREM', KEYS[4], ARGV[1])
redis.pcall('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], 'graceful_interruptions', 'graceful_interruptions_before_progress',
  'graceful_interrupted_in', 'graceful_attempts', 'exc_info', 'started_at', 'ended_at', 'worker_name')
redis.call('HSET', KEYS[1], 'status', 'queued', 'enqueued_at', ARGV[3])
redis.call('PERSIST', KEYS[1])
if ttl and ttl > 0 then
  redis.call('EXPIRE', KEYS[1], math.floor(ttl))
end
redis.pcall('SADD', KEYS[5], KEYS[3])
redis.call('RPUSH', KEYS[3], ARGV[1])
return 'requeued'
"""
)


@dataclass(frozen=True, slots=True)
class Poison:
    """One poison job.

    Args:
        job_id: the job.
        queue: the queue that it belongs to.
        at: when it was given up.
        interruptions: how often it was interrupted in all.
        evidence: how its last attempts have ended, the oldest first.
    """

    job_id: str
    queue: str
    at: datetime
    interruptions: int
    evidence: tuple[Attempt, ...]

    @property
    def function(self) -> str:
        """Dotted name of its function; empty if unknown."""
        return next((attempt.function for attempt in reversed(self.evidence) if attempt.function), "")


def poison_jobs(connection: redis.Redis, most: int = MOST_SHOWN) -> list[Poison]:
    """Those that are still failed, the newest first; what has been deleted since is taken off the list.

    Args:
        connection: a client of the server.
        most: how many are read.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    listed: Any = connection.zrevrange(POISON_KEY, 0, most - 1, withscores=True)
    with connection.pipeline(transaction=False) as pipeline:
        for job_id, _ in listed:
            pipeline.hmget(_key(job_id), JOB_FIELDS)
        found = pipeline.execute(raise_on_error=False)  # A key of another type is no job.
    poison, gone = [], []
    for (job_id, at), fields in zip(listed, found, strict=True):
        if isinstance(fields, Exception) or fields[0] is None:
            gone.append(job_id)
        elif fields[0] == b"failed" and fields[1] is not None:
            origin, interruptions = fields[1].decode("utf-8", "replace"), counter(fields[2])
            moment = datetime.fromtimestamp(min(max(at, 0.0), 2.0**34), UTC)
            evidence = attempts.load(fields[3])
            poison.append(Poison(_text(job_id), storable(origin), moment, interruptions, evidence))
    if gone:
        connection.zrem(POISON_KEY, *gone)
    return poison


def count_poison(connection: redis.Redis) -> int:
    """How many poison jobs are failed and wait for somebody.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return int(Script(connection, COUNT_SCRIPT)(keys=[POISON_KEY], args=[Job.redis_job_namespace_prefix]))


def requeue_poison(connection: redis.Redis, job_id: str) -> str:
    """Put a poison job at the end of its queue; its interruptions are counted from 0.

    Args:
        connection: a client of the server.
        job_id: the job.

    Returns:
        ``"requeued"``, or why not: ``"not poison"`` (it is not on this server's list), ``"gone"`` (it was deleted),
        ``"moved"``, ``"rate limited"`` (RQ alone can requeue it), or the status that it has.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable, or the queue is no list.
    """
    key = _key(job_id.encode("utf-8", "surrogateescape"))
    origin: Any = connection.hget(key, "origin") if connection.type(key) == b"hash" else None
    name = (origin or b"").decode("utf-8", "surrogateescape")
    queue_key = Queue(name, connection=connection).key if name else f"{Queue.redis_queue_namespace_prefix}none"
    reply: Any = Script(connection, REQUEUE_POISON_SCRIPT)(
        keys=[key, rq_private.failed_registry_key(name, connection), queue_key, POISON_KEY, QUEUES_KEY],
        args=[job_id, name, utcformat(now())],
    )
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)


def _key(job_id: bytes) -> bytes:
    return Job.redis_job_namespace_prefix.encode() + job_id


def _text(job_id: bytes) -> str:
    return job_id.decode("utf-8", "replace")
