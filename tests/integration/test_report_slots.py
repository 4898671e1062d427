"""How many workers store their report at one time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from graceful.conf import settings
from graceful.reports import slots
from graceful.reports.journal import Journal
from graceful.worker.cluster.maintenance import run_maintenance
from tests.db.samples import a_report
from tests.support.server import Server


def test_no_more_than_there_are(valkey: Server, connection: redis.Redis) -> None:
    """Of many who ask at once, as many get a slot as there are; one that is given back is another's."""
    together = threading.Barrier(12)

    def ask(number: int) -> bool:
        with redis.Redis.from_url(valkey.url) as client:
            together.wait(10)
            return slots.take(client, f"w{number}", 5, 30)

    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(ask, range(12)))
    assert sum(taken) == 5
    assert not slots.take(connection, "late", 5, 30)
    slots.free(connection, f"w{taken.index(True)}")
    assert slots.take(connection, "late", 5, 30)


def test_a_killed_holders_slot_expires(connection: redis.Redis) -> None:
    """The slot of a holder that was killed is free again after its time, by the server's clock."""
    assert slots.take(connection, "killed", 1, 30)
    assert not slots.take(connection, "next", 1, 30)
    connection.zadd(slots.SLOTS_KEY, {"killed": connection.time()[0] - 1})  # type: ignore[index]
    assert slots.take(connection, "next", 1, 30)
    assert 0 < connection.ttl(slots.SLOTS_KEY) <= 90  # type: ignore[operator]


def test_without_a_limit_nothing_is_counted(connection: redis.Redis) -> None:
    """With GRACEFUL_REPORT_CONNECTIONS = None anybody may store, and Redis is not asked."""
    assert slots.take(connection, "w", None, 30)
    assert not connection.exists(slots.SLOTS_KEY)


def test_a_foreign_value_under_its_key(connection: redis.Redis) -> None:
    """What another client wrote under the key is set aside."""
    connection.set(slots.SLOTS_KEY, "text")
    assert slots.take(connection, "w", 1, 30)


@pytest.mark.django_db(transaction=True)
def test_maintenance_takes_a_slot(connection: redis.Redis) -> None:
    """Maintenance leaves the database to others while all slots are taken, and gives its own back."""
    report = a_report()
    Journal(connection).write(report)
    most = settings().report_connections
    assert most is not None
    for number in range(most):
        assert slots.take(connection, f"w{number}", most, 30)
    run_maintenance(connection, settings())
    assert [each.id for each in Journal(connection).entries()] == [report.id]
    slots.free(connection, "w0")
    run_maintenance(connection, settings())
    assert Journal(connection).entries() == []
    assert slots.take(connection, "w0", most, 30)
