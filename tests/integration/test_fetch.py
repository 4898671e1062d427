"""Taking jobs from a real server: a fetch can be repeated, waiting takes nothing, and both work on every connection."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from graceful.worker.fetch import HELD_KEY, HOLDERS_KEY, MAX_WATCHED_QUEUES, Fetched, Fetcher, QueueWatch
from graceful.worker.os_signals import Inbox
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.waiting import wait_until

PAIRS = [(f"q{number}", f"q{number}:intermediate") for number in range(3)]
KEYS = [queue for queue, _ in PAIRS]
NO_RETRY = redis.retry.Retry(redis.backoff.NoBackoff(), 0)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def watch(connection: redis.Redis, inbox: Inbox) -> Iterator[QueueWatch]:
    watch = QueueWatch(connection, inbox)
    yield watch
    watch.close()


def contents(connection: redis.Redis) -> dict[str, list[str]]:
    found = {key: [each.decode() for each in connection.lrange(key, 0, -1)] for pair in PAIRS for key in pair}
    return {key: ids for key, ids in found.items() if ids}


def test_the_first_job_of_the_first_queue_that_has_one(connection: redis.Redis) -> None:
    """Urgent jobs would wait for others, or jobs would be done out of turn."""
    connection.rpush("q1", "b1", "b2")
    connection.rpush("q2", "c1")
    fetcher = Fetcher(connection, "life")
    assert fetcher.fetch(PAIRS) == Fetched("q1", "b1")
    connection.rpush("q0", "a1")
    assert fetcher.fetch(PAIRS) == Fetched("q0", "a1")
    assert fetcher.fetch(PAIRS[2:]) == Fetched("q2", "c1")
    assert fetcher.fetch(PAIRS) == Fetched("q1", "b2")
    assert contents(connection) == {"q1:intermediate": ["b2"]}, "those before it are done with, and nowhere any more"
    assert fetcher.fetch(PAIRS) is None
    assert contents(connection) == {}


def test_it_is_known_who_took_a_job(connection: redis.Redis) -> None:
    """The job of a worker that was killed right after the fetch would be in nobody's hands."""
    connection.rpush("q0", "a1", "a2")
    one, two = Fetcher(connection, "one"), Fetcher(connection, "two")
    one.fetch(PAIRS)
    two.fetch(PAIRS)
    assert connection.hgetall(HOLDERS_KEY) == {b"a1": b"one", b"a2": b"two"}
    assert connection.hget(HELD_KEY.format("one"), "job") == b"a1"
    assert connection.ttl(HELD_KEY.format("one")) == -1, "it is kept until somebody has seen to the worker's end"


@pytest.mark.parametrize("queues", [1, 3])
def test_a_reply_that_is_lost_is_given_again(queues: int, valkey: Server, connection: redis.Redis) -> None:
    """A connection that is cut at the wrong instant would leave a job in nobody's hands; RQ's own fetch does."""
    connection.rpush("q0", "a1", "a2")
    with Proxy(valkey.port) as proxy:
        client = redis.Redis(port=proxy.port, retry=NO_RETRY)
        fetcher = Fetcher(client, "life")
        assert fetcher.fetch(PAIRS[:queues]) == Fetched("q0", "a1")
        proxy.cut_replies()
        with pytest.raises(redis.exceptions.ConnectionError):
            fetcher.fetch(PAIRS[:queues])
        wait_until(lambda: connection.llen("q0") == 0, 5, "the server has moved the job")
        assert fetcher.unsure
        proxy.restore()
        assert fetcher.unconfirmed() == Fetched("q0", "a2")
        assert fetcher.fetch(PAIRS[:queues]) == Fetched("q0", "a2")
        assert not fetcher.unsure
        assert fetcher.unconfirmed() is None
        client.close()
    assert contents(connection) == {"q0:intermediate": ["a2"]}


def test_a_new_life_does_not_get_the_job_of_the_old_one(connection: redis.Redis) -> None:
    """A worker that is started again under its old name would take a finished job for its own."""
    connection.rpush("q0", "a1")
    assert Fetcher(connection, "one").fetch(PAIRS) == Fetched("q0", "a1")
    assert Fetcher(connection, "two").fetch(PAIRS) is None
    assert Fetcher(connection, "two").unconfirmed() is None


def test_many_at_once_take_each_job_once(valkey: Server, connection: redis.Redis) -> None:
    """Two workers would do the same job."""
    ids = [f"job-{number}" for number in range(300)]
    connection.rpush("q0", *ids)

    def take_all(number: int) -> list[str]:
        with redis.Redis(port=valkey.port) as client:
            fetcher = Fetcher(client, f"life-{number}")
            taken = []
            while (fetched := fetcher.fetch(PAIRS)) is not None:
                taken.append(fetched.job_id)
            return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [job_id for each in pool.map(take_all, range(6)) for job_id in each]
    assert sorted(taken) == sorted(ids)


@given(st.lists(st.sampled_from(["push0", "push1", "push2", "fetch", "lost"]), max_size=30))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_lost_no_job_is(connection: redis.Redis, steps: list[str]) -> None:
    """Against a model: a job is in its queue, or was handed out exactly once."""
    connection.flushall()
    fetcher = Fetcher(connection, "life")
    model: dict[str, list[str]] = {key: [] for key in KEYS}
    taken: list[str] = []
    expected: list[str] = []
    for number, step in enumerate(steps):
        if step.startswith("push"):
            connection.rpush(f"q{step[-1]}", str(number))
            model[f"q{step[-1]}"].append(str(number))
            continue
        if step == "lost":
            # The server does it, and the reply does not arrive: the same fetch, unseen by the worker.
            count = fetcher._count
            lost = fetcher.fetch(PAIRS)
            fetcher._count = count
            if lost is not None and not (expected and expected[-1] == lost.job_id):
                queue = next(key for key in KEYS if model[key])
                expected.append(model[queue].pop(0))
            continue
        fetched = fetcher.fetch(PAIRS)
        if len(expected) == len(taken):
            queue = next((key for key in KEYS if model[key]), "")
            if queue:
                expected.append(model[queue].pop(0))
        if fetched is not None:
            taken.append(fetched.job_id)
        assert taken == expected
    assert len(taken) == len(set(taken))


def test_waiting_takes_nothing_away(connection: redis.Redis, watch: QueueWatch) -> None:
    """A job would be taken by a connection that nobody reads any more."""
    connection.rpush("q1", "b1", "b2")
    for _ in range(3):
        assert watch.wait(KEYS, 5)
    watch.close()
    assert contents(connection) == {"q1": ["b1", "b2"]}


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
    keys = [f"many-{number}" for number in range(MAX_WATCHED_QUEUES + 4)]
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
    watch = QueueWatch(client, inbox)
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
    watch = QueueWatch(client, inbox)
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
