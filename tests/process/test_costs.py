"""What a graceful worker costs Redis, beside a stock one: commands and connections."""

from __future__ import annotations

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
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
