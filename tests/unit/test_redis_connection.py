"""What we set on a project's pool of Redis connections."""

from __future__ import annotations

import redis

from graceful.worker.compat.redis_connection import know_driver


class OwnConnection(redis.Connection):
    """A project's connection class, which need not take redis-py's options."""


def test_the_drivers_version_is_looked_up_once() -> None:
    """New connections of a pool share what redis-py says of itself, where it has an option for that."""
    pool = redis.ConnectionPool.from_url("redis://localhost")
    know_driver(pool)
    assert ("driver_info" in pool.connection_kwargs) == hasattr(redis, "DriverInfo")
    described = vars(pool.make_connection())
    plain = vars(redis.ConnectionPool.from_url("redis://localhost").make_connection())
    assert described.get("driver_info") == plain.get("driver_info")


def test_a_projects_own_words_are_kept() -> None:
    """Neither a version that the project sets itself nor its own class of connections is touched."""
    named = redis.ConnectionPool.from_url("redis://localhost", lib_name="shop")
    know_driver(named)
    assert "driver_info" not in named.connection_kwargs
    own = redis.ConnectionPool.from_url("redis://localhost", connection_class=OwnConnection)
    know_driver(own)
    assert "driver_info" not in own.connection_kwargs
