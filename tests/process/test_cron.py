"""``runcron_graceful``: stops at random instants, successors, a Redis that does not answer, wrong configurations."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job

from graceful.worker.cron import CRON_KEY
from tests.support.processes import DjangoProcess
from tests.support.server import Server
from tests.support.waiting import wait_until

CONFIG = "tests.support.cron_config"
Start = Callable[..., DjangoProcess]


@pytest.fixture
def start_cron(tmp_path: Path) -> Iterator[Start]:
    """Start a scheduler; whatever still runs is killed after the test."""
    started: list[DjangoProcess] = []

    def start(server: Server, config: str = CONFIG, **settings: object) -> DjangoProcess:
        process = DjangoProcess(
            ["runcron_graceful", config],
            output=tmp_path / f"cron-{len(started)}.log",
            environment={"TEST_REDIS_URL": server.url},
            settings={"GRACEFUL_EXIT_HOOKS": ["tests.benchmarks.jobs.hook"], **settings},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.clear()


def enqueued(queue: Queue) -> list[float]:
    """When each job was enqueued, in order."""
    jobs = Job.fetch_many(queue.job_ids, connection=queue.connection)
    return sorted(job.enqueued_at.timestamp() for job in jobs if job is not None and job.enqueued_at)


def test_stops_at_random_instants(valkey: Server, queue: Queue, connection: redis.Redis, start_cron: Start) -> None:
    """Each scheduler is stopped while its successor runs already: no tick comes twice, and none is left out."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    current = start_cron(valkey)
    wait_until(lambda: queue.count, 20, lambda: current.output)
    for _ in range(6):
        successor = start_cron(valkey)
        successor.wait_output("registering birth", 20)
        time.sleep(rng.uniform(0, 1.2))  # The instant of the stop, chosen at random.
        current.signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
        assert current.wait() == 0, current.output
        current = successor
    seen = queue.count
    wait_until(lambda: queue.count > seen, 10, lambda: current.output)
    current.signal()
    assert current.wait() == 0, current.output
    assert "Exit hooks at process exit: 1 run, all ok" in current.output
    times = enqueued(queue)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) > 0.9, f"a tick came twice: {gaps}"
    assert max(gaps) < 3, f"a tick was left out: {gaps}"
    assert connection.zcard("rq:cron_schedulers") == 0


def test_it_goes_on_where_it_was(valkey: Server, queue: Queue, connection: redis.Redis, start_cron: Start) -> None:
    """A scheduler that was killed leaves nothing undone: the next one makes up for what came due, once."""
    first = start_cron(valkey)
    wait_until(lambda: queue.count, 20, lambda: first.output)
    first.signal(signal.SIGKILL)
    first.wait()
    queue.empty()
    (identity,) = connection.hkeys(CRON_KEY)  # type: ignore[misc]
    connection.hset(CRON_KEY, identity, time.time() - 3600)
    second = start_cron(valkey)
    second.wait_output("enqueued once", 20)
    second.signal()
    assert second.wait() == 0, second.output
    assert queue.count == 1


def test_redis_that_does_not_answer(own_valkey: Server, start_cron: Start) -> None:
    """A stop does not wait for Redis, and exit hooks run all the same."""
    cron = start_cron(own_valkey)
    cron.wait_output("registering birth", 20)
    own_valkey.pause()
    try:
        time.sleep(1.5)  # It stands in its next command.
        cron.signal()
        assert cron.wait(15) == 0, cron.output
    finally:
        own_valkey.resume()
    assert "Exit hooks at process exit: 1 run, all ok" in cron.output


def test_redis_that_is_away(own_valkey: Server, start_cron: Start) -> None:
    """It waits for a Redis that is restarted, and goes on."""
    cron = start_cron(own_valkey)
    cron.wait_output("registering birth", 20)
    own_valkey.restart()
    client = own_valkey.client()
    seen = client.llen("rq:queue:default")
    wait_until(lambda: client.llen("rq:queue:default") > seen, 30, lambda: cron.output)  # type: ignore[operator]
    cron.signal()
    assert cron.wait() == 0, cron.output


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("no.such.module", "config_path must be a module or file that registers cron jobs"),
        ("tests.support.cron_config_empty", "config_path must register cron jobs with rq.cron.register(), got none"),
    ],
)
def test_a_wrong_configuration(config: str, message: str, valkey: Server, start_cron: Start) -> None:
    """A configuration that cannot be loaded, or has no jobs, is refused before anything starts."""
    cron = start_cron(valkey, config)
    assert cron.wait() == 78, cron.output
    assert message in cron.output


def test_a_wrong_setting(valkey: Server, start_cron: Start) -> None:
    """A setting that is wrong is told of, and nothing starts."""
    cron = start_cron(valkey, GRACEFUL_TIMEOUT=-1)
    assert cron.wait() == 78, cron.output
    assert "GRACEFUL_TIMEOUT must be a positive number of seconds, got: -1" in cron.output
