"""The connection that waits for jobs and writes the journal, used by several threads."""

from __future__ import annotations

import socket
import threading

import pytest
import redis

from graceful.threads import bounded
from graceful.worker.compat.redis_connection import OwnConnection
from tests.support.waiting import wait_until


def test_a_thread_that_waits_for_redis_holds_up_no_other() -> None:
    """While the main thread connects to a Redis that does not answer, a signal's journal entry fails within seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        own = OwnConnection(redis.Redis(port=silent.getsockname()[1], protocol=3))

        def connect() -> None:
            with pytest.raises(redis.RedisError):
                own.ask(("PING",))

        connecting = threading.Thread(target=connect, daemon=True)
        connecting.start()
        accepted, _address = silent.accept()
        wait_until(lambda: bool(accepted.recv(1)), seconds=5)
        posting = bounded(lambda: own.post("HSET", "journal", "id", "{}"), 5)
        closing = bounded(own.disconnect, 5)
        accepted.close()
        connecting.join(10)
    assert isinstance(posting.error, redis.TimeoutError)
    assert "another thread" in str(posting.error)
    assert closing.error is None
