"""What RQ still lists of a worker that is dead: its entries go, so that its name is free and no page shows it."""

from __future__ import annotations

import redis

from graceful.reports.set_aside import Script
from graceful.worker.cluster.heartbeat import WORKERS_KEY, Registration
from graceful.worker.compat import rq_private
from graceful.worker.queue.lua import ASK

FORGET_SCRIPT = """
-- KEYS: our workers, RQ's hash of the worker, then its other keys and the registries of workers, of which it leaves.
-- ARGV: life, name, how many of the keys are its own.
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local read, other = pcall(cjson.decode, text)
  if read and type(other) == 'table' and other['worker'] == ARGV[2] and other['life'] ~= ARGV[1] then
    -- Another one has the name by now, and these entries are that one's.
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
RELEASE_SCRIPT = (
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


def forget(connection: redis.Redis, registration: Registration) -> None:
    """Remove the ghost: RQ's own entries of the dead worker, so that its name is free and no page lists it.

    Args:
        connection: a client of the server.
        registration: the worker, which has ended, or is about to and will not do it itself.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    own = rq_private.worker_keys(registration.worker)
    Script(connection, FORGET_SCRIPT)(
        keys=[WORKERS_KEY, *own, *rq_private.worker_registries(registration.queues)],
        args=[registration.life, registration.worker, len(own)],
    )
    if registration.scheduler:
        keys = rq_private.scheduler_keys(registration.queues, registration.scheduler)
        connection.register_script(RELEASE_SCRIPT)(keys=keys, args=[registration.scheduler])
