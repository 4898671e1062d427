"""What a graceful worker costs Redis, beside a stock one: commands and connections."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import ROOT
from tests.support.server import Server
from tests.support.traffic import traffic
from tests.support.waiting import wait_until

WAITS = {"rqworker": "BLMOVE", "runworker_graceful": "EXISTS graceful:wake:"}
"""The last thing that an idle worker says to Redis."""


def for_one_job(command: str, server: Server, queue: Queue, start_worker: StartWorker) -> list[str]:
    """What an idle worker and its horse say to Redis for one job, until it is idle again."""
    worker = start_worker(command=command)
    with traffic(server) as heard:

        def waits() -> bool:
            commands = heard.commands()
            return bool(commands) and commands[-1].startswith(WAITS[command])

        queue.enqueue(jobs.quick)
        wait_until(waits, 20, lambda: worker.output)
        before = len(heard.commands())
        queue.enqueue(jobs.quick)
        wait_until(lambda: len(heard.commands()) > before + 10 and waits(), 20, lambda: worker.output)
        commands = heard.commands()[before:]
    worker.signal()
    assert worker.wait(10) == 0, worker.output
    return commands


def test_a_job_costs_no_more_commands(valkey: Server, queue: Queue, start_worker: StartWorker) -> None:
    """A job costs Redis no more commands than with a stock worker, though its holder is written down."""
    stock = for_one_job("rqworker", valkey, queue, start_worker)
    graceful = for_one_job("runworker_graceful", valkey, queue, start_worker)
    assert len(graceful) <= len(stock), "\n".join(graceful)


@pytest.mark.parametrize("queues", [("default",), ("high", "default", "low")])
def test_an_idle_worker_holds_three_connections(
    queues: tuple[str, ...], connection: redis.Redis, start_worker: StartWorker
) -> None:
    """For commands, for RQ's command channel, and to wait for jobs; whatever the number of its queues."""
    before = len(connection.client_list())
    worker = start_worker(queues)
    wait_until(lambda: connection.exists("graceful:watching:rq:queue:default"), 10, lambda: worker.output)
    own = 1  # It looks at the worker's state.
    assert len(connection.client_list()) - before - own == 3, connection.client_list()
    worker.signal()
    assert worker.wait(10) == 0, worker.output


def test_an_idle_worker_connects_nowhere_to_end(connection: redis.Redis, start_worker: StartWorker) -> None:
    """The end of a worker goes over the connections that it has."""
    worker = start_worker()
    wait_until(lambda: connection.exists("graceful:watching:rq:queue:default"), 10, lambda: worker.output)
    before = connection.info("stats")["total_connections_received"]
    worker.signal()
    assert worker.wait(10) == 0, worker.output
    # An older redis-py gives RQ's closed command channel back to the pool, and connects it again for the last command.
    again = 0 if redis.VERSION >= (8,) else 1
    assert connection.info("stats")["total_connections_received"] <= before + again


def test_a_worker_does_not_load_what_only_pages_need() -> None:
    """Django's admin has each process load its modules; what renders a page is loaded where a page is shown."""
    script = (
        "import django, sys; django.setup()\n"
        "from django.contrib import admin; admin.autodiscover()\n"
        "import graceful.management.commands.runworker_graceful\n"
        "print(*(name for name in sys.modules if name.startswith('graceful.')), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "graceful.admin" in loaded
    pages = ("graceful.reports.page", "graceful.reports.story", "graceful.reports.deploys", "graceful.reports.advice")
    assert [name for name in loaded if name.startswith((*pages, "graceful.metrics"))] == []
