"""Waiting for jobs on a real server: nothing is taken away, few are woken, and no loss of a connection loses a job."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from graceful.worker.queue.fetch import Fetcher
from graceful.worker.queue.wait import ASLEEP_KEY, WATCHING_KEY
from graceful.worker.shutdown.os_signals import Inbox
from tests.support.idle_workers import KEYS, IdleWorker, Watch
from tests.support.server import Server
from tests.support.waiting import wait_until

PAIRS = [(key, f"{key}:intermediate") for key in KEYS]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def watch(connection: redis.Redis, inbox: Inbox) -> Iterator[Watch]:
    watch = Watch(connection, inbox, "worker-id")
    yield watch
    watch.close()


def test_waiting_takes_nothing_away(connection: redis.Redis, watch: Watch) -> None:
    """Waiting takes no job out of a queue."""
    connection.rpush("q1", "b1", "b2")
    for _ in range(3):
        assert watch.wait(KEYS, 5)
    watch.close()
    assert connection.lrange("q1", 0, -1) == [b"b1", b"b2"]


def test_waiting_ends_when_a_job_comes(valkey: Server, connection: redis.Redis, watch: Watch) -> None:
    """A wait ends as soon as a job is enqueued."""
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


def test_waiting_ends_when_the_time_is_up(watch: Watch) -> None:
    """A wait ends after its time, without a job."""
    began = time.monotonic()
    assert not watch.wait(KEYS, 0.2)
    assert 0.15 < time.monotonic() - began < 1


def test_waiting_ends_at_a_signal(watch: Watch, inbox: Inbox) -> None:
    """A wait ends at a signal."""
    threading.Timer(0.05, inbox.record, (signal.SIGTERM, None)).start()
    began = time.monotonic()
    assert watch.wait(KEYS, 10)
    assert time.monotonic() - began < 1


def test_one_connection_for_any_number_of_queues(connection: redis.Redis, watch: Watch) -> None:
    """Waiting on 20 queues costs one connection, which stays while jobs come and go."""
    keys = [f"many-{number}" for number in range(20)]
    clients = len(connection.client_list())
    received = connection.info("stats")["total_connections_received"]
    for key in keys:
        assert not watch.wait(keys, 0.01)
        timer = threading.Timer(0.05, connection.rpush, (key, "job"))
        timer.start()
        began = time.monotonic()
        assert watch.wait(keys, 5)
        assert time.monotonic() - began < 1
        timer.join()
        connection.delete(key)
        watch.leave()
        wait_until(lambda: not watch.wait(keys, 0.05), 5)
    # Those of the two timers' threads may have made one more in this client's pool.
    assert connection.info("stats")["total_connections_received"] - received <= 2
    assert len(connection.client_list()) - clients <= 2


def test_the_server_closes_the_waiting_connection(valkey: Server, connection: redis.Redis, watch: Watch) -> None:
    """After the server closed the connection the next wait reconnects."""
    watch.wait(KEYS, 0.05)
    threading.Timer(0.05, connection.execute_command, ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")).start()
    assert watch.wait(KEYS, 5), "it looks at the queues again"
    with redis.Redis(port=valkey.port) as other:
        threading.Timer(0.05, other.rpush, ("q2", "c1")).start()
        wait_until(lambda: watch.wait(KEYS, 5) and connection.llen("q2"), 5)


@pytest.mark.parametrize("rules", [["-client"], ["-client", "+client|tracking"], ["-exists"]])
def test_a_user_that_may_not_wait(rules: list[str], connection: redis.Redis, valkey: Server, inbox: Inbox) -> None:
    """A worker whose ACL forbids tracking looks at its queues every 0.25 s, and its connection can still be used."""
    connection.acl_setuser("limited", enabled=True, passwords=["+x"], commands=["+@all", *rules], keys=["*"])
    client = redis.Redis(port=valkey.port, username="limited", password="x")
    watch = Watch(client, inbox, "worker-id")
    try:
        for _ in range(2):
            began = time.monotonic()
            assert watch.wait(KEYS, 5)
            assert 0.2 < time.monotonic() - began < 2
        watch.own.post("SET", "q1", "job")
        wait_until(lambda: connection.exists("q1"), 5)
    finally:
        watch.close()
        client.close()
        connection.acl_deluser("limited")


class NoSocket(redis.Connection):
    """A connection without a socket, as that of fakeredis."""

    def connect(self) -> None:
        pass

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        pass

    def read_response(self, *args: object, **options: object) -> list[object]:
        return []


class OldProtocol(redis.Connection):
    """A connection class of a project, that knows no ``protocol``."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host=host, port=port, protocol=2)


@pytest.mark.parametrize("connection_class", [NoSocket, OldProtocol])
def test_a_connection_that_cannot_be_watched(
    connection_class: type[redis.Connection], valkey: Server, inbox: Inbox
) -> None:
    """Where there is no socket, or no RESP3, queues are looked at every 0.25 s."""
    pool = redis.ConnectionPool(connection_class=connection_class, host="127.0.0.1", port=valkey.port)
    pool.connection_kwargs = {"host": "127.0.0.1", "port": valkey.port}
    watch = Watch(redis.Redis(connection_pool=pool), inbox, "worker-id")
    began = time.monotonic()
    assert watch.wait(KEYS, 5)
    assert 0.2 < time.monotonic() - began < 2
    watch.close()


@pytest.mark.parametrize("options", [{"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"db": 3}])
def test_clients_of_every_kind(options: dict[str, Any], valkey: Server, inbox: Inbox) -> None:
    """A push is seen at once, whatever protocol the client itself speaks; again and again."""
    options = {"health_check_interval": 1, **options}
    with redis.Redis(port=valkey.port, **options) as client, redis.Redis(port=valkey.port, **options) as other:
        client.flushall()
        watch = Watch(client, inbox, "worker-id")
        for key in (*KEYS, *KEYS):
            assert not watch.wait(KEYS, 0.01)
            timer = threading.Timer(0.02, other.rpush, (key, "job"))
            timer.start()
            began = time.monotonic()
            assert watch.wait(KEYS, 5)
            assert time.monotonic() - began < 1
            timer.join()
            watch.leave()
            other.delete(key)
        watch.close()


@pytest.mark.parametrize("pool_class", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_pool_with_one_connection(
    pool_class: type[redis.ConnectionPool], valkey: Server, connection: redis.Redis, inbox: Inbox
) -> None:
    """Waiting takes no connection out of a pool with ``max_connections``, which taking a job needs."""
    options = {"timeout": 3} if pool_class is redis.BlockingConnectionPool else {}
    pool = pool_class(port=valkey.port, max_connections=1, **options)
    client = redis.Redis(connection_pool=pool)
    watch = Watch(client, inbox, "worker-id")
    fetcher = Fetcher(client, "worker-id")
    assert not watch.wait(KEYS, 0.1)
    assert fetcher.fetch(PAIRS) is None
    connection.rpush("q2", "c1")
    assert watch.wait(KEYS, 5)
    assert fetcher.fetch(PAIRS)
    watch.close()
    client.close()
    pool.disconnect()


def test_a_job_that_comes_between_fetch_and_wait(connection: redis.Redis, watch: Watch) -> None:
    """There is no gap: the wait begins with a look."""
    assert not watch.wait(KEYS, 0.01)
    watch.leave()
    connection.rpush("q1", "b1")
    began = time.monotonic()
    assert watch.wait(KEYS, 5)
    assert time.monotonic() - began < 1


def test_flushall_wakes_once(connection: redis.Redis, watch: Watch) -> None:
    """FLUSHALL tells everybody who tracks; a push after it is still seen."""
    assert not watch.wait(KEYS, 0.01)
    connection.flushall()
    assert watch.wait(KEYS, 5)
    assert not watch.wait(KEYS, 0.05)
    connection.rpush("q2", "c1")
    assert watch.wait(KEYS, 5)


def test_a_tracking_table_that_is_too_small(inbox: Inbox) -> None:
    """A server that forgets what is tracked, and says so each time, is not asked without a pause."""
    keys = [f"many-{number}" for number in range(20)]
    with Server({"tracking-table-max-keys": "1"}) as server:
        client = server.client()
        watch = Watch(client, inbox, "worker-id")
        until = time.monotonic() + 2
        turns = 0
        while time.monotonic() < until:
            watch.wait(keys, 0.5)
            turns += 1
        assert turns < 100
        threading.Timer(0.05, server.client().rpush, (keys[3], "job")).start()
        wait_until(lambda: watch.wait(keys, 0.5) and client.exists(keys[3]), 5)
        watch.close()


@pytest.fixture
def idle(valkey: Server, connection: redis.Redis) -> Iterator[list[IdleWorker]]:
    workers = [IdleWorker(valkey, number) for number in range(20)]
    for worker in workers:
        assert worker.waiting.wait(10)
    yield workers
    for worker in workers:
        worker.stop()


def test_nothing_is_left_of_workers_that_leave(connection: redis.Redis, idle: list[IdleWorker]) -> None:
    """Seats are given back at once by workers that stop, not only when their leases end."""
    for worker in idle:
        worker.stop()
    wait_until(lambda: not connection.keys("graceful:watching:*") + connection.keys("graceful:asleep:*"), 5)


def test_a_job_wakes_few(connection: redis.Redis, idle: list[IdleWorker]) -> None:
    """One job wakes the two workers on watch and one that takes the taker's place, not all 20 that are idle."""
    woken = sum(worker.woken for worker in idle)
    for number in range(30):
        connection.rpush("q0", f"job-{number}")
        wait_until(lambda number=number: sum(len(worker.taken) for worker in idle) > number, 5)  # type: ignore[misc]
    assert sum(worker.woken for worker in idle) - woken < 30 * 5


def test_many_jobs_wake_many(connection: redis.Redis, idle: list[IdleWorker]) -> None:
    """Jobs that come all at once are done by all of them, not one after the other by those on watch."""
    connection.rpush("q0", *(f"job-{number}" for number in range(2000)))
    wait_until(lambda: sum(len(worker.taken) for worker in idle) == 2000, 20)
    assert len([worker for worker in idle if worker.taken]) > 10


def test_those_on_watch_are_killed(connection: redis.Redis, valkey: Server, idle: list[IdleWorker]) -> None:
    """Workers on watch that are gone without leaving stop no job for long: one asleep looks, and others follow."""
    connection.delete(WATCHING_KEY.format("q0"))
    connection.zadd(WATCHING_KEY.format("q0"), {"gone": 4_000_000_000, "gone too": 4_000_000_000})
    connection.client_kill_filter(_type="normal", skipme=True)  # Each joins anew, and finds both seats taken.
    wait_until(lambda: connection.zcard(ASLEEP_KEY.format("q0")) == 20, 5)
    for worker in idle:
        worker.waiting.clear()
    assert all(worker.waiting.wait(10) for worker in idle)
    connection.rpush("q0", "job")
    wait_until(lambda: any(worker.taken for worker in idle), 40)
    # Whoever found it has others on watch again.
    wait_until(lambda: connection.zscore(WATCHING_KEY.format("q0"), "gone") is None, 5)
    began = time.monotonic()
    connection.rpush("q0", "job 2")
    wait_until(lambda: sum(len(worker.taken) for worker in idle) == 2, 5)
    assert time.monotonic() - began < 1.5


def test_connections_are_cut_at_random(valkey: Server, connection: redis.Redis, idle: list[IdleWorker]) -> None:
    """20 idle workers, 200 jobs, and connections that are cut all the time: each job is taken once."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    ids = [f"job-{number}" for number in range(200)]
    for job_id in ids:
        connection.rpush("q0", job_id)
        for client in rng.sample(connection.client_list(), 2):
            if client["id"] != str(connection.client_id()):
                connection.client_kill_filter(_id=client["id"])
        time.sleep(rng.uniform(0, 0.005))
    wait_until(lambda: sum(len(worker.taken) for worker in idle) >= 200, 20)
    assert sorted(job_id for worker in idle for job_id in worker.taken) == sorted(ids)
