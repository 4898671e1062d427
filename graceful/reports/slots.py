"""How many processes store reports at one time: a fleet that ends at once must not take every database connection.

Whoever has no slot leaves its report in the journal; others archive it from there in batches.
"""

from __future__ import annotations

from redis import Redis

from graceful.reports.set_aside import Script

SLOTS_KEY = "graceful:storing"
"""Sorted set: who stores reports, by when its slot expires (seconds, by the server's clock)."""

TAKE = """
-- KEYS: the sorted set. ARGV: who asks, how many slots there are, seconds that it may be held.
local now = redis.call('TIME')
local at = tonumber(now[1]) + tonumber(now[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', at)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], at + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])) + 60)
return 1
"""


def take(connection: Redis, holder: str, most: int | None, seconds: float) -> bool:
    """Take a slot, if there is one.

    Args:
        connection: a client of the server.
        holder: who takes it.
        most: how many slots there are; None for any number.
        seconds: after so many it is free again, should its holder be killed.

    Raises:
        redis.RedisError: Redis is unreachable, or refused.
    """
    return most is None or bool(Script(connection, TAKE)(keys=[SLOTS_KEY], args=[holder, most, seconds]))


def free(connection: Redis, holder: str) -> None:
    """Give a slot back.

    Raises:
        redis.RedisError: Redis is unreachable.
    """
    connection.zrem(SLOTS_KEY, holder)
