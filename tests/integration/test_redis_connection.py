"""What is done to redis-py's own objects, on a real server."""

from __future__ import annotations

import time

import pytest
import redis

from graceful.worker.compat import redis_connection
from tests.support.server import Server


@pytest.mark.parametrize("pool_class", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_pool_is_bounded(pool_class: type[redis.ConnectionPool], own_valkey: Server) -> None:
    """From then on a server that does not answer is not waited for; until then it still answers."""
    pool = pool_class(port=own_valkey.port)
    client = redis.Redis(connection_pool=pool)
    assert client.ping()
    redis_connection.bound(pool, 0.2)
    assert client.ping()
    own_valkey.pause()
    try:
        began = time.monotonic()
        with pytest.raises((redis.exceptions.TimeoutError, redis.exceptions.ConnectionError)):
            client.ping()
        assert time.monotonic() - began < 2
    finally:
        own_valkey.resume()
    assert client.ping()
    client.close()


def test_an_idle_connection_is_kept(own_valkey: Server) -> None:
    """A shutdown need not connect anew."""
    pool = redis.ConnectionPool(port=own_valkey.port)
    client = redis.Redis(connection_pool=pool)
    before = client.client_id()
    redis_connection.bound(pool, 0.2)
    assert client.client_id() == before
    client.close()
