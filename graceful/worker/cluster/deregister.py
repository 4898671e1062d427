"""Removes RQ's entries of a dead worker, so that its name is free and no page lists it."""

from __future__ import annotations

import redis

from graceful.reports.set_aside import Script
from graceful.worker.cluster.heartbeat import WORKERS_KEY, Registration
from graceful.worker.compat import rq_private
from graceful.worker.queue.lua import ASK

DEREGISTER_FROM_RQ_SCRIPT = """
-- KEYS: our workers, RQ's hash of the worker, then its other keys and the worker registries that list it.
-- ARGV: life, name, how many of the keys are its own.
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
        args=[registration.life, registration.worker, len(own)],
    )
    if registration.scheduler:
        keys = rq_private.scheduler_keys(registration.queues, registration.scheduler)
        connection.register_script(RELEASE_LOCKS_SCRIPT)(keys=keys, args=[registration.scheduler])
