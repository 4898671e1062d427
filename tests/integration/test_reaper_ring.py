"""Which workers of its machine a worker looks at."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from graceful.conf import settings
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.cluster.process_identity import Process
from graceful.worker.cluster.reaper import WATCHED, Reaper
from graceful.worker.cluster.registration import WORKERS_KEY, Registration
from tests.support.server import Server
from tests.support.traffic import traffic

pytestmark = pytest.mark.django_db(transaction=True)
A_WORKER: Any = object()


def start(connection: redis.Redis, worker_id: str, *, dead: bool = False) -> Heartbeat:
    """A worker of this machine that has sent its first heartbeat; its process is this one, or one that has ended."""
    process = Process.here()._replace(started="1") if dead else Process.here()
    heartbeat = Heartbeat(connection, Registration(worker_id, f"name-of-{worker_id}", ("default",), process))
    heartbeat.beat()
    return heartbeat


def reap(connection: redis.Redis, heartbeat: Heartbeat) -> int:
    worker_id = heartbeat.registration.worker_id
    return Reaper(connection, worker_id, worker_id, settings(), A_WORKER).reap(heartbeat.beat())


def test_every_dead_one_is_found(connection: redis.Redis) -> None:
    """Once each living worker has looked, no dead one is left, whichever died."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(15):
        connection.flushall()
        numbers = range(rng.randint(2, 12))
        ids = [f"{rng.randrange(16**8):08x}-{number}" for number in numbers]
        living = rng.sample(ids, rng.randint(1, len(ids)))
        beating = [start(connection, each, dead=each not in living) for each in ids]
        for heartbeat in beating:
            if heartbeat.registration.worker_id in living:
                reap(connection, heartbeat)
        assert {each.decode() for each in connection.hkeys(WORKERS_KEY)} == set(living)  # type: ignore[union-attr]


def test_one_survivor_finds_all(connection: redis.Redis) -> None:
    """The only one that is left of a machine finds all the others at once."""
    for number in range(10):
        start(connection, f"w{number}", dead=True)
    assert reap(connection, start(connection, "w5-and-a-half")) == 10


@pytest.mark.parametrize("number", [10, 60])
def test_it_looks_at_few(number: int, valkey: Server, connection: redis.Redis) -> None:
    """A worker asks Redis about as many workers among sixty as among ten, and once for each that goes on."""
    first, *_others = [start(connection, f"w{each}") for each in range(number)]
    reaper = Reaper(connection, "w0", "w0", settings(), A_WORKER)
    with traffic(valkey) as heard:
        for asked in (WATCHED, WATCHED):
            reaper.reap(first.beat())
            assert sum(each.startswith("HGET ") for each in heard.commands()) == asked
