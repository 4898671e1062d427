"""Who counts as dead after Redis itself was away: nobody could beat then."""

from __future__ import annotations

import time

import redis

from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS, Heartbeat
from graceful.worker.cluster.process_identity import Process
from graceful.worker.cluster.registration import HEARTBEATS_KEY, Registration


def heartbeat(connection: redis.Redis, worker_id: str) -> Heartbeat:
    return Heartbeat(
        connection, Registration(worker_id, worker_id, ("default",), Process(f"machine of {worker_id}", 1, "1"))
    )


def test_redis_away_makes_nobody_overdue(connection: redis.Redis) -> None:
    """After an outage of Redis nobody is judged overdue by a worker whose own heartbeat was late."""
    first, second = heartbeat(connection, "first"), heartbeat(connection, "second")
    first.beat()
    second.beat()
    long_ago = time.time() - OVERDUE_SECONDS - 10
    connection.zadd(HEARTBEATS_KEY, {"first": long_ago, "second": long_ago})
    assert first.beat().overdue == ()
    assert heartbeat(connection, "newcomer").beat().overdue == ()


def test_silent_worker_is_overdue(connection: redis.Redis) -> None:
    """A worker whose heartbeat is overdue is reported to the others."""
    first, second = heartbeat(connection, "first"), heartbeat(connection, "second")
    first.beat()
    second.beat()
    connection.zadd(HEARTBEATS_KEY, {"second": time.time() - OVERDUE_SECONDS - 10})
    assert first.beat().overdue == ("second",)
