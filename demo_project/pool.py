"""A connection pool of our own, beside those of Django and RQ: what a project has that a thread of it needs."""

from __future__ import annotations

import redis
from django.conf import settings

SAMPLES_KEY = "graceful-demo:samples"

_pool: redis.ConnectionPool | None = None


def samples() -> redis.Redis:
    """A client over the pool, which is opened at the first call."""
    global _pool
    if _pool is None:
        _pool = redis.ConnectionPool.from_url(settings.REDIS_URL, max_connections=2)
    return redis.Redis(connection_pool=_pool)


def close_pool() -> str | None:
    """The exit hook: give the connections back, rather than have the server find out. Idempotent."""
    global _pool
    pool, _pool = _pool, None
    if pool is None:
        return None
    pool.disconnect()
    return "closed the pool of the samples"
