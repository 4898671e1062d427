"""Taking jobs from a real server: a fetch can be repeated without loss."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY, Fetched, Fetcher
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.waiting import wait_until

PAIRS = [(f"q{number}", f"q{number}:intermediate") for number in range(3)]
KEYS = [queue for queue, _ in PAIRS]
NO_RETRY = redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def contents(connection: redis.Redis) -> dict[str, list[str]]:
    found = {key: [each.decode() for each in connection.lrange(key, 0, -1)] for pair in PAIRS for key in pair}
    return {key: ids for key, ids in found.items() if ids}


def test_the_first_job_of_the_first_queue_that_has_one(connection: redis.Redis) -> None:
    """Fetch takes the first job of the first queue in order of priority."""
    connection.rpush("q1", "b1", "b2")
    connection.rpush("q2", "c1")
    fetcher = Fetcher(connection, "worker-id")
    assert fetcher.fetch(PAIRS) == Fetched("q1", "b1")
    connection.rpush("q0", "a1")
    assert fetcher.fetch(PAIRS) == Fetched("q0", "a1")
    assert fetcher.fetch(PAIRS[2:]) == Fetched("q2", "c1")
    assert fetcher.fetch(PAIRS) == Fetched("q1", "b2")
    assert contents(connection) == {"q1:intermediate": ["b2"]}, "those before it are done with, and nowhere any more"
    assert fetcher.fetch(PAIRS) is None
    assert contents(connection) == {}


def test_it_is_known_who_took_a_job(connection: redis.Redis) -> None:
    """A fetched job is recorded as held by the worker at once."""
    connection.rpush("q0", "a1", "a2")
    one, two = Fetcher(connection, "one"), Fetcher(connection, "two")
    one.fetch(PAIRS)
    two.fetch(PAIRS)
    assert connection.hgetall(HOLDERS_KEY) == {b"a1": b"one", b"a2": b"two"}
    assert connection.hget(HELD_KEY.format("one"), "job") == b"a1"
    assert connection.ttl(HELD_KEY.format("one")) == -1, "it is kept until somebody has seen to the worker's end"


@pytest.mark.parametrize("queues", [1, 3])
def test_a_reply_that_is_lost_is_given_again(queues: int, valkey: Server, connection: redis.Redis) -> None:
    """A fetch whose reply was lost returns the same job when retried."""
    connection.rpush("q0", "a1", "a2")
    with Proxy(valkey.port) as proxy:
        client = redis.Redis(port=proxy.port, retry=NO_RETRY)
        fetcher = Fetcher(client, "worker-id")
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
    """A restarted worker does not get the job of its previous run."""
    connection.rpush("q0", "a1")
    assert Fetcher(connection, "one").fetch(PAIRS) == Fetched("q0", "a1")
    assert Fetcher(connection, "two").fetch(PAIRS) is None
    assert Fetcher(connection, "two").unconfirmed() is None


def test_many_at_once_take_each_job_once(valkey: Server, connection: redis.Redis) -> None:
    """Concurrent workers take each job once."""
    ids = [f"job-{number}" for number in range(300)]
    connection.rpush("q0", *ids)

    def take_all(number: int) -> list[str]:
        with redis.Redis(port=valkey.port) as client:
            fetcher = Fetcher(client, f"worker-id-{number}")
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
    fetcher = Fetcher(connection, "worker-id")
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
