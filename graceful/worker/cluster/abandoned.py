"""Jobs of dead workers that RQ's clean-up has failed: the failure is undone, so that they count as interrupted.

Workers of this version keep RQ's entries alive long enough to prevent that. Workers of the previous version do not,
and no entry lives for ever (:data:`graceful.worker.queue.fetch.HELD_SECONDS`).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import redis
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.results import Result

from graceful.reports.set_aside import Script
from graceful.worker.queue.fetch import HOLDERS_KEY
from graceful.worker.queue.lua import ASK

REASONS = ("Moved to FailedJobRegistry, due to AbandonedJobError", "Job was stuck in intermediate queue.")
"""Prefixes of the reason: ``StartedJobRegistry.cleanup`` and ``IntermediateQueue.cleanup`` (RQ 2.6.1 to 3.0.0)."""
FAILED = b"2"
"""``Result.Type.FAILED``."""
READ_BYTES = 200

UNDO_SCRIPT = (
    ASK
    + """
-- KEYS: job, its results, failed registry, holders. ARGV: job id, id of the dead worker, its name, id of the result
-- that says that the job was failed by RQ's clean-up (or '').
if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[2] then
  return 'not held'
end
local status = ask('HGET', KEYS[1], 'status')
if status == 'started' then
  local worker = redis.call('HGET', KEYS[1], 'worker_name')
  if worker and worker ~= ARGV[3] then
    -- It was requeued meanwhile, and runs with a worker that is not ours.
    redis.call('HDEL', KEYS[4], ARGV[1])
    return 'not held'
  end
end
if status ~= 'failed' or ARGV[4] == '' then
  return 'held'
end
local last = ask('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if not last or #last == 0 or last[1][1] ~= ARGV[4] or not ask('ZSCORE', KEYS[3], ARGV[1]) then
  return 'held'
end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XDEL', KEYS[2], ARGV[4])
redis.call('HDEL', KEYS[1], 'exc_info', 'ended_at')
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], 'status', 'started')
return 'undone'
"""
)


def undo(connection: redis.Redis, worker_id: str, worker_name: str, job_id: str, origin: str) -> bool:
    """Undo the failure of a job that a dead worker held and that RQ's clean-up has failed: its status is started again.

    A job that failed by itself, or that was requeued meanwhile, is left alone; one that another worker runs by now is
    no longer held. Nothing is unpickled. A failure callback that has run is not undone.

    Args:
        connection: a client of the server.
        worker_id: the dead worker's id, see :mod:`.registration`.
        worker_name: its name.
        job_id: the job.
        origin: the queue that the job belongs to.

    Returns:
        whether a failure was undone.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable; nothing or all of it has happened.
    """
    results = Result.get_key(job_id)
    last: Any = connection.xrevrange(results, count=1) if connection.type(results) == b"stream" else []
    found: Any = Script(connection, UNDO_SCRIPT)(
        keys=[Job.key_for(job_id), results, FailedJobRegistry(origin, connection).key, HOLDERS_KEY],
        args=[job_id, worker_id, worker_name, last[0][0] if last and _by_clean_up(last[0][1]) else ""],
    )
    return bool(found == b"undone")


def _by_clean_up(result: dict[bytes, bytes]) -> bool:
    """Whether a result shows that RQ's clean-up, and not the job itself, failed it."""
    if result.get(b"type") != FAILED:
        return False
    try:
        text = base64.b64decode(result.get(b"exc_string", b""))
        reason = zlib.decompressobj().decompress(text, READ_BYTES).decode("utf-8", "replace")
    except (ValueError, binascii.Error, zlib.error):
        return False
    return reason.startswith(REASONS)
