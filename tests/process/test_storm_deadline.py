"""Workers with a short grace period, stopped at random instants in jobs that take about as long.

``STORM`` sets the number of shutdowns of each test, ``SEED`` the random instants of an earlier run.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from rq import Callback, Queue, Retry
from rq.job import Job

from graceful.core import report_json
from graceful.reports.journal import JOURNAL_KEY
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.support import storm_jobs
from tests.support.forkserver import ForkServer
from tests.support.job_accounting import balance
from tests.support.jobs import STARTED
from tests.support.processes import pids_in_session
from tests.support.server import Server
from tests.support.waiting import wait_until

SHUTDOWNS = int(os.environ.get("STORM", "24"))
TOGETHER = 3
JOBS = 16
RETRIES = 3
TIMEOUT, HOOKS_TIMEOUT, INTERRUPT_TIMEOUT = 1.5, 0.4, 0.3
OVERRUN_SECONDS = 0.25
SLACK_SECONDS = float(os.environ.get("STORM_SLACK", "1.0"))
"""Allowed on top on a machine that other tests keep busy; 0 where it is the storm's alone."""
WAYS = ("nap", "sleep", "spin", "stubborn")
SETTINGS = {
    "GRACEFUL_TIMEOUT": TIMEOUT,
    "GRACEFUL_HOOKS_TIMEOUT": HOOKS_TIMEOUT,
    "GRACEFUL_INTERRUPT_TIMEOUT": INTERRUPT_TIMEOUT,
    "GRACEFUL_MAX_INTERRUPTIONS": 1_000_000,
    "GRACEFUL_EXIT_HOOKS": ["tests.support.storm_jobs.moody_hook", "tests.support.storm_jobs.last_hook"],
}


@pytest.fixture
def seed() -> int:
    """Of all random choices; printed where a test fails."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed} STORM={SHUTDOWNS}")
    return seed


@pytest.fixture
def forkserver(valkey: Server, connection: redis.Redis, tmp_path: Path) -> Iterator[ForkServer]:
    """A place that starts workers with a short grace period."""
    environment = {"TEST_REDIS_URL": valkey.url, "TEST_RUN_DIR": str(django_settings.RUN_DIR)}
    settings = SETTINGS | {"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")}
    with ForkServer(tmp_path / "workers.log", environment, settings) as forkserver:
        yield forkserver


def enqueue(queue: Queue, shuffled: random.Random, number: int) -> list[Job]:
    """So many jobs with all that an interruption could harm: callbacks, retries, and dependents of half of them."""
    parents = [
        queue.enqueue(
            storm_jobs.long,
            shuffled.choice(WAYS),
            0.0,
            1.8,
            on_success=Callback(storm_jobs.succeeded),
            on_failure=Callback(storm_jobs.failed),
            retry=Retry(max=RETRIES),
        )
        for _ in range(number)
    ]
    dependents = [
        queue.enqueue(
            storm_jobs.long,
            "nap",
            0.0,
            0.2,
            depends_on=parent,
            on_success=Callback(storm_jobs.succeeded),
            on_failure=Callback(storm_jobs.failed),
        )
        for parent in parents[::2]
    ]
    return parents + dependents


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_an_interrupted_job_loses_nothing_but_time(
    worker_class: str, connection: redis.Redis, forkserver: ForkServer, queue: Queue, seed: int
) -> None:
    """Interrupted jobs are requeued within the budget; none fails, is lost, or runs twice at once."""
    shuffled = random.Random(seed)
    jobs: list[Job] = []
    overruns: list[float] = []
    codes: list[int] = []
    for number in range(max(1, SHUTDOWNS // TOGETHER)):
        if queue.count < JOBS:
            jobs += enqueue(queue, shuffled, JOBS - queue.count)
        ids = [job.id for job in jobs]
        options = ("--worker-class", worker_class)
        pids = [
            forkserver.start("runworker_graceful", queue.name, "--name", f"deadline-{number}-{each}", *options)
            for each in range(TOGETHER)
        ]
        wait_until(
            lambda: connection.scard("rq:workers") == TOGETHER,
            10,
            lambda: f"workers are up:\n{forkserver.output[-5000:]}",
        )
        signalled = {}
        for pid in pids:
            time.sleep(shuffled.uniform(0, 0.3))
            signalled[pid] = time.monotonic()
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            code, at = forkserver.wait(pid)
            overruns.append(at - signalled[pid] - TIMEOUT)
            codes.append(code)
            # 1 is the watchdog's, which needs no Python and knows no other code: of a process that the machine did not
            # let run for the last tenth of a second, so that it could not seal its report. Counted below.
            if code != 1:
                name = f"deadline-{number}-{pids.index(pid)}"
                reports = [report_json.load(text) for text in connection.hvals(JOURNAL_KEY)]
                sealed = [report.exit_code for report in reports if report.worker == name]
                assert sealed == [code], f"exit code {code}, report {sealed}; output:\n{forkserver.output[-8000:]}"
            wait_until(lambda pid=pid: not pids_in_session(pid), 3, "nothing is left behind")  # type: ignore[misc]
        books = balance(connection, ids)
        books.assert_balanced()
        assert books.at("failed") == []
    worst = max(overruns)
    print(
        f"{worker_class}: {len(codes)} shutdowns, exit codes {Counter(codes)}; past GRACEFUL_TIMEOUT by "
        f"{worst * 1000:.0f} ms at worst, {statistics.median(overruns) * 1000:.0f} ms at the median"
    )
    assert codes.count(1) <= max(1, len(codes) // 50)
    assert worst <= OVERRUN_SECONDS + SLACK_SECONDS
    # They came to their last hook, whatever their job and the hook before had taken; it has some milliseconds.
    assert int(connection.get(storm_jobs.LAST_HOOK) or 0) >= 0.9 * len(codes)

    for job in jobs:
        assert job.get_status(refresh=True) in ("queued", "finished", "deferred")
    interrupted = [job for job in jobs if connection.hget(job.key, INTERRUPTIONS_FIELD)]
    assert interrupted, "no job was interrupted: this storm showed nothing"
    connection.set(storm_jobs.HURRY, 1)
    connection.delete(storm_jobs.LAST_HOOK)
    pid = forkserver.start("runworker_graceful", queue.name, "--burst", "--worker-class", worker_class)
    assert forkserver.wait(pid, 60)[0] in (0, 70)
    books = balance(connection, ids)
    books.assert_balanced()
    assert sorted(books.at("finished")) == sorted(ids), books.summary()
    assert connection.smembers(storm_jobs.EARLY) == set()
    called = {key.decode(): int(times) for key, times in connection.hgetall(storm_jobs.CALLED).items()}
    assert not [key for key in called if key.startswith("failure")]
    assert {f"success:{job_id}" for job_id in ids} == called.keys()
    for job in jobs:
        job.refresh()
        assert job.retries_left in (RETRIES, None), "an interruption has used up a retry"
        started = int(connection.hget(STARTED, job.id) or 0)
        interruptions = int(connection.hget(job.key, INTERRUPTIONS_FIELD) or 0)
        # An interruption may come before the job's own code began, but none goes uncounted.
        assert started <= interruptions + 1, f"{job.id} was started {started} times, interrupted {interruptions} times"
