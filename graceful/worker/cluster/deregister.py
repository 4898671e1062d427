"""Removes the entries of a worker, ours and RQ's, so that its name is free and no page lists it."""

from __future__ import annotations

import redis
from rq.job import Job

from graceful.reports.journal import JOURNAL_KEY
from graceful.reports.set_aside import Script
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY, Registration
from graceful.worker.compat import rq_private
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY
from graceful.worker.queue.lua import ASK, UNSETTLED

DEREGISTER_SCRIPT = (
    UNSETTLED
    + """
-- KEYS: workers, heartbeats, machine, held, holders, journal.
-- ARGV: worker id, '1' to remove the journal entry too, prefix of job keys, '1' if the job is settled.
local held = ask('HMGET', KEYS[4], 'queue', 'job') or {}
local mine = redis.call('HGET', KEYS[5], held[2] or '') == ARGV[1] and held[2]
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('HLEN', KEYS[6])
if mine and held[1] and ARGV[4] == '' and unsettled(held[1], mine, ARGV[3]) then
  -- Redis was restarted and lost its last writes: a reaper requeues the job.
  return 0
end
-- Nothing below can fail.
if mine then
  if held[1] and ARGV[4] == '' then
    redis.pcall('LREM', held[1] .. ':intermediate', 0, mine)
    redis.call('DEL', held[1] .. ':intermediate:first_seen:' .. mine)
  end
  redis.call('HDEL', KEYS[5], mine)
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[4])
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[6], ARGV[1])
end
return 1
"""
)
DEREGISTER_FROM_RQ_SCRIPT = """
-- KEYS: our workers, RQ's hash of the worker, then its other keys and the worker registries that list it.
-- ARGV: worker id, name, how many of the keys are its own.
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local read, other = pcall(cjson.decode, text)
  if read and type(other) == 'table' and other['worker'] == ARGV[2] and other['life'] ~= ARGV[1] then
    -- Another worker has the name by now, and these entries belong to it.
    return 0
  end
end
for i = 2, #KEYS do
  if i - 1 <= tonumber(ARGV[3]) then
    redis.call('DEL', KEYS[i])
  else
    redis.pcall('SREM', KEYS[i], KEYS[2])
  end
end
return 1
"""
RELEASE_LOCKS_SCRIPT = (
    ASK
    + """
-- KEYS: locks, and last the scheduler's hash. ARGV: the scheduler's name.
for i = 1, #KEYS - 1 do
  if ask('GET', KEYS[i]) == ARGV[1] then
    redis.call('DEL', KEYS[i])
  end
end
redis.call('DEL', KEYS[#KEYS])
"""
)


def deregister(
    connection: redis.Redis, registration: Registration, *, archived: bool, job_settled: bool = False
) -> None:
    """Remove our own entries of a worker.

    Args:
        connection: a client of the server.
        registration: the worker.
        archived: whether the report is in the database; its journal entry is removed then too.
        job_settled: whether the caller has settled its job as far as possible.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    Script(connection, DEREGISTER_SCRIPT)(
        keys=[
            WORKERS_KEY,
            HEARTBEATS_KEY,
            MACHINE_KEY.format(registration.process.machine),
            HELD_KEY.format(registration.worker_id),
            HOLDERS_KEY,
            JOURNAL_KEY,
        ],
        args=[
            registration.worker_id,
            "1" if archived else "",
            Job.redis_job_namespace_prefix,
            "1" if job_settled else "",
        ],
    )


def deregister_from_rq(connection: redis.Redis, registration: Registration) -> None:
    """Remove RQ's own entries of a worker, and release the locks of its scheduler.

    Args:
        connection: a client of the server.
        registration: the worker: dead, or about to end without doing it itself.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    own = rq_private.worker_keys(registration.worker)
    Script(connection, DEREGISTER_FROM_RQ_SCRIPT)(
        keys=[WORKERS_KEY, *own, *rq_private.worker_registries(registration.queues)],
        args=[registration.worker_id, registration.worker, len(own)],
    )
    if registration.scheduler:
        keys = rq_private.scheduler_keys(registration.queues, registration.scheduler)
        connection.register_script(RELEASE_LOCKS_SCRIPT)(keys=keys, args=[registration.scheduler])
