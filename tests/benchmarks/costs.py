"""What waiting for jobs and doing one costs Redis: connections and commands."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import django

from tests.benchmarks.jobs import ENDS, stamped
from tests.benchmarks.measures import Bench, Kind
from tests.support.traffic import traffic
from tests.support.waiting import wait_until

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.support.idle_workers import IdleWorker  # noqa: E402


def connections(on: Bench, kind: Kind, queues: Sequence[str]) -> int:
    """How many connections an idle worker holds."""
    on.connection.flushall()
    before = len(on.connection.client_list())
    with on.worker(kind, queues) as worker:
        on.queue().enqueue(stamped)
        wait_until(lambda: on.connection.llen(ENDS), 20)
        worker.wait_state("idle")
        time.sleep(0.5)
        return len(on.connection.client_list()) - before


def commands(on: Bench, kind: Kind) -> int:
    """How many commands a job costs Redis from worker and horse, those of its enqueueing included."""
    on.connection.flushall()
    with on.worker(kind) as worker, traffic(on.server) as heard:
        for turn in (1, 2):  # At the first one scripts may have to be loaded.
            before = len(heard.commands())
            on.queue().enqueue(stamped)
            wait_until(lambda turn=turn: on.connection.llen(ENDS) == turn, 20)  # type: ignore[misc]
            worker.wait_state("idle")
            time.sleep(0.5)
        found = [each for each in heard.commands()[before:] if not each.startswith(("LLEN bench", "HGET rq:worker"))]
        return len(found)


def handing_out(on: Bench, workers: int, jobs: int = 50) -> float:
    """How many commands a job costs Redis until one of many idle workers has it, and all wait again."""
    on.connection.flushall()
    idle = [IdleWorker(on.server, number) for number in range(workers)]
    try:
        for each in idle:
            assert each.waiting.wait(30)
        with traffic(on.server) as heard:
            for number in range(jobs):
                on.connection.rpush("q0", f"job-{number}")
                wait_until(lambda number=number: sum(len(each.taken) for each in idle) > number, 10)  # type: ignore[misc]
                time.sleep(0.05)
            return (len(heard.commands()) - jobs) / jobs
    finally:
        for each in idle:
            each.stop()
