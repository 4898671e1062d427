"""Waiting for jobs on a real server: nothing is taken away, few are woken, and no loss of a connection loses a job."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from graceful.worker.fetch import Fetcher
from graceful.worker.os_signals import Inbox
from graceful.worker.queue_watch import QueueWatch
from tests.support.server import Server
from tests.support.waiting import wait_until

PAIRS = [(f"q{number}", f"q{number}:intermediate") for number in range(3)]
KEYS = [queue for queue, _ in PAIRS]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def watch(connection: redis.Redis, inbox: Inbox) -> Iterator[QueueWatch]:
    watch = QueueWatch(connection, inbox, "life")
    yield watch
    watch.close()


def test_waiting_takes_nothing_away(connection: redis.Redis, watch: QueueWatch) -> None:
    """A job would be taken by a connection that nobody reads any more."""
    connection.rpush("q1", "b1", "b2")
    for _ in range(3):
        assert watch.wait(KEYS, 5)
    watch.close()
    assert connection.lrange("q1", 0, -1) == [b"b1", b"b2"]


def test_waiting_ends_when_a_job_comes(valkey: Server, connection: redis.Redis, watch: QueueWatch) -> None:
    """A job would wait until the next look at its queue."""
    with redis.Redis(port=valkey.port) as other:
        for number in range(5):
            began = time.monotonic()
            timer = threading.Timer(0.05, other.rpush, (KEYS[number % 3], f"job-{number}"))
            timer.start()
            assert watch.wait(KEYS, 5)
            seconds = time.monotonic() - began
            timer.join()
            assert seconds < 0.5
            connection.delete(*KEYS)


def test_waiting_ends_when_the_time_is_up(watch: QueueWatch) -> None:
    """A worker would not send its heartbeats."""
    began = time.monotonic()
    assert not watch.wait(KEYS, 0.2)
    assert 0.15 < time.monotonic() - began < 1


def test_waiting_ends_at_a_signal(watch: QueueWatch, inbox: Inbox) -> None:
    """An idle worker would take its time to stop."""
    threading.Timer(0.05, inbox.record, (signal.SIGTERM, None)).start()
    began = time.monotonic()
    assert watch.wait(KEYS, 10)
    assert time.monotonic() - began < 1


def test_connections_are_kept_while_nothing_happens(connection: redis.Redis, watch: QueueWatch) -> None:
    """An idle worker would make new connections all the time, each with its login."""
    watch.wait(KEYS, 0.05)
    before = connection.info("stats")["total_connections_received"]
    for _ in range(5):
        watch.wait(KEYS, 0.05)
    connection.rpush("q0", "a1")
    assert watch.wait(KEYS, 5)
    connection.delete("q0")
    watch.wait(KEYS, 0.05)
    assert connection.info("stats")["total_connections_received"] - before <= 1


def test_more_queues_than_are_watched(valkey: Server, connection: redis.Redis, watch: QueueWatch) -> None:
    """A worker on many queues would not see the last of them, or would make connections without end."""
    keys = [f"many-{number}" for number in range(20)]
    watch.wait(keys, 0.05)
    before = connection.info("stats")["total_connections_received"]
    connection.rpush(keys[-1], "job")
    began = time.monotonic()
    assert watch.wait(keys, 10)
    assert time.monotonic() - began < 1
    connection.delete(keys[-1])
    for _ in range(4):
        watch.wait(keys, 0.6)
    assert connection.info("stats")["total_connections_received"] - before <= 2
    threading.Timer(0.05, connection.rpush, (keys[3], "job")).start()
    began = time.monotonic()
    assert watch.wait(keys, 10)
    assert time.monotonic() - began < 1


def test_the_server_closes_the_waiting_connection(valkey: Server, connection: redis.Redis, watch: QueueWatch) -> None:
    """A fail-over, or a proxy that cuts idle connections, would leave the worker deaf."""
    watch.wait(KEYS, 0.05)
    threading.Timer(0.05, connection.execute_command, ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")).start()
    assert watch.wait(KEYS, 5), "it looks at the queues again"
    with redis.Redis(port=valkey.port) as other:
        threading.Timer(0.05, other.rpush, ("q2", "c1")).start()
        wait_until(lambda: watch.wait(KEYS, 5) and connection.llen("q2"), 5)


def test_a_user_that_may_not_wait(connection: redis.Redis, valkey: Server, inbox: Inbox) -> None:
    """A worker whose ACL forbids BLMOVE would ask without a pause."""
    connection.acl_setuser("limited", enabled=True, passwords=["+x"], commands=["+@all", "-blmove"], keys=["*"])
    client = redis.Redis(port=valkey.port, username="limited", password="x")
    watch = QueueWatch(client, inbox, "life")
    try:
        watch.wait(KEYS, 0.3)
        began = time.monotonic()
        assert watch.wait(KEYS, 0.3)
        assert time.monotonic() - began > 0.2
    finally:
        watch.close()
        client.close()
        connection.acl_deluser("limited")


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("pool_class", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_pool_with_few_connections(
    spare: int, pool_class: type[redis.ConnectionPool], valkey: Server, connection: redis.Redis, inbox: Inbox
) -> None:
    """A worker with ``max_connections`` would use them all up for waiting, and could not take a job any more."""
    options = {"timeout": 3} if pool_class is redis.BlockingConnectionPool else {}
    pool = pool_class(port=valkey.port, max_connections=1 + spare, **options)
    client = redis.Redis(connection_pool=pool)
    watch = QueueWatch(client, inbox, "life")
    fetcher = Fetcher(client, "life")
    try:
        began = time.monotonic()
        watch.wait(KEYS, 0.3)
        assert time.monotonic() - began < 2, "it has waited for a connection"
        assert fetcher.fetch(PAIRS) is None, "there is no connection left to take a job with"
        threading.Timer(0.05, connection.rpush, ("q2", "c1")).start()
        began = time.monotonic()
        wait_until(lambda: watch.wait(KEYS, 5) and fetcher.fetch(PAIRS), 5)
        assert time.monotonic() - began < 2
    finally:
        watch.close()
        client.close()
        pool.disconnect()
