"""SIGHUP to a pool: new code, one worker after the other, whatever else is under way."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue

from graceful.core.phases import Outcome
from graceful.worker.pool.reload import OWN
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.pools import reports, start_pool, workers
from tests.support.processes import WorkerProcess, pids_in_session
from tests.support.waiting import let_pass, wait_until

pytestmark = pytest.mark.usefixtures("shared_database")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An app whose code changes; by its size too, since compiled code is found by that and the second of the change."""
    app = tmp_path / "changing_app"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "models.py").write_text("ANSWER = 1\n")
    (app / "jobs.py").write_text("from changing_app.models import ANSWER\n\ndef answer():\n    return ANSWER\n")
    return app


def pool_of(shop: Path, start_worker: StartWorker, connection: redis.Redis, number: int) -> WorkerProcess:
    settings = {"INSTALLED_APPS": [*django_settings.INSTALLED_APPS, "changing_app"]}
    path = os.pathsep.join([str(shop.parent), os.environ.get("PYTHONPATH", "")])
    pool = start_worker(
        options=["--workers", str(number)], settings=settings, environment={"PYTHONPATH": path}, name="pool", wait=False
    )
    wait_until(lambda: len(workers(connection)) == number, 20, lambda: pool.output)
    return pool


def test_new_code(shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """SIGHUP replaces the workers one after the other by workers with the new code; all but one take jobs meanwhile."""
    pool = pool_of(shop, start_worker, connection, 3)
    before = workers(connection)
    (shop / "models.py").write_text("ANSWER = 1 + 1\n")
    pool.signal(signal.SIGHUP)
    fewest = 3

    def all_new() -> bool:
        nonlocal fewest
        now = workers(connection)
        fewest = min(fewest, len(now))
        return len(now) == 3 and not set(now.values()) & set(before.values())

    done = []
    while not all_new():
        done.append(queue.enqueue("changing_app.jobs.answer"))
        wait_until(lambda: done[-1].get_status(refresh=True) in ("finished", "failed") or all_new(), 20, pool.__repr__)
    assert fewest >= 2, pool.output
    last = queue.enqueue("changing_app.jobs.answer")
    wait_until(lambda: last.get_status(refresh=True) == "finished", 20, lambda: pool.output)
    assert last.return_value() == 2
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in done), 20, lambda: pool.output)
    pool.signal()
    assert pool.wait() == 0, pool.output
    assert pids_in_session(pool.pid) == []
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}
    assert len(reports()) == 6


def test_new_code_twice(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A second SIGHUP while workers are being replaced: all but one take jobs all the time."""
    pool = start_pool(start_worker, connection, 3)
    before, fewest = workers(connection), 3
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    pool.signal(signal.SIGHUP)

    def all_new() -> bool:
        nonlocal fewest
        now = workers(connection)
        fewest = min(fewest, len(now))
        twice = pool.output.count("workers are replaced one after the other") == 2
        return twice and len(now) == 3 and not set(now.values()) & set(before.values())

    wait_until(all_new, 30, lambda: pool.output)
    assert fewest >= 2, pool.output
    pool.signal()
    assert pool.wait() == 0, pool.output


def test_new_code_that_cannot_be_loaded(
    shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """The workers go on with the code that they have."""
    pool = pool_of(shop, start_worker, connection, 2)
    before = workers(connection)
    (shop / "models.py").write_text("this is no Python\n")
    pool.signal(signal.SIGHUP)
    pool.wait_output("the new one cannot be loaded", 30)
    assert "SyntaxError" in pool.output
    assert workers(connection) == before
    pool.signal(signal.SIGTERM)
    assert pool.wait() == 0, pool.output


def test_a_stop_while_new_code_comes(
    shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A stop at any instant of the replacement ends all workers, old and new, gracefully."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(4):
        pool = pool_of(shop, start_worker, connection, 2)
        pool.signal(signal.SIGHUP)
        let_pass(rng.uniform(0, 2.5), "the instant of the stop is drawn")
        pool.signal()
        assert pool.wait() == 0, pool.output
        assert pids_in_session(pool.pid) == []
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}


def test_new_code_while_the_pool_is_not_complete(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A place whose worker has crashed, and is to be filled after a pause, is filled after SIGHUP too."""
    pool = start_pool(start_worker, connection, 2)
    for _ in range(2):
        before = workers(connection)
        os.kill(before["pool.2"], signal.SIGKILL)
        wait_until(lambda: workers(connection).get("pool.2") not in (None, before["pool.2"]), 10, lambda: pool.output)  # noqa: B023
    os.kill(workers(connection)["pool.2"], signal.SIGKILL)
    pool.wait_output("another one is started in 4 s")  # More than the new code takes to load.
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    assert "pool.2" not in workers(connection)
    wait_until(lambda: len(workers(connection)) == 2, 20, lambda: pool.output)
    pool.signal()
    assert pool.wait() == 0, pool.output


def test_new_code_while_a_worker_leaves(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker that finishes its job to leave is not hurried by SIGHUP, and nobody comes in its place."""
    pool = start_pool(start_worker, connection, 2)
    old = workers(connection)["pool.1"]
    enqueued = [queue.enqueue(jobs.until_released, "go") for _ in range(2)]
    wait_until(lambda: connection.hlen(jobs.PIDS) == 2, 10, lambda: pool.output)
    pool.signal(signal.SIGTTOU)
    pool.wait_output("1 workers from now on")
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    let_pass(1.2, "a second SIGTERM would count: within a second two are one")
    connection.rpush("go", 1, 1)
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in enqueued), 20, lambda: pool.output)
    wait_until(lambda: workers(connection).get("pool.1") not in (None, old), 20, lambda: pool.output)
    assert list(workers(connection)) == ["pool.1"]
    pool.signal()
    assert pool.wait() == 0, pool.output
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}
    assert sorted(each.worker for each in reports()) == ["pool.1", "pool.1", "pool.2"]


@pytest.mark.parametrize("signum", OWN)
def test_signals_while_new_code_comes(
    signum: signal.Signals, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """None of them ends or stops the parent at any instant, also while it executes itself anew."""
    pool = start_pool(start_worker, connection, 1)
    pool.signal(signal.SIGHUP)
    while "workers are replaced one after the other" not in pool.output:
        pool.signal(signum)
        let_pass(0.01, "signals come all the time")
        assert pool.running, pool.output
    pool.signal()
    assert pool.wait() == 0, pool.output
