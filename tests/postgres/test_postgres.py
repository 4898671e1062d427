"""What only a real PostgreSQL does: it runs out of connections, and Django keeps pools of them.

A tier of its own: it uses up the server's connections, and runs alone. ``DATABASE_URL`` names the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection as database
from redis import Redis
from rq import Queue

from demo_project.database_url import database_from_url
from graceful.models import ReportedHook, ShutdownReport
from graceful.reports.journal import Journal
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
POOLED_HOOK = "graceful.hooks.builtin.close_database_connections"


@contextmanager
def all_connections_taken() -> Iterator[None]:
    """Connect until the server refuses."""
    taken: list[psycopg.Connection[Any]] = []
    parameters = database.get_connection_params()
    parameters = {
        key: value for key, value in parameters.items() if key in ("dbname", "user", "password", "host", "port")
    }
    try:
        while len(taken) < 1000:
            try:
                taken.append(psycopg.connect(**parameters))
            except psycopg.OperationalError:
                break
        assert len(taken) < 1000, "the server has more connections than this test can take"
        yield
    finally:
        for each in taken:
            each.close()


def stored(worker: WorkerProcess) -> ShutdownReport:
    wait_until(lambda: ShutdownReport.objects.filter(worker=worker.name).exists(), 10)
    return ShutdownReport.objects.get(worker=worker.name)


def test_out_of_connections_at_the_end(
    connection: Redis, queue: Queue, start_worker: StartWorker, shared_database: str
) -> None:
    """If the database refuses a connection, the report waits and is stored later."""
    job = queue.enqueue(jobs.quick)
    worker = start_worker()
    wait_until(lambda: job.get_status() == "finished", 20)
    with all_connections_taken():
        worker.signal()
        assert worker.wait(20) == 0, worker.output
        assert [report.worker for report in Journal(connection).entries()] == [worker.name]
    call_command("archive_reports")
    assert stored(worker).outcome == "clean"
    assert Journal(connection).entries() == []


def test_pool_is_closed_before_each_fork_and_at_the_end(
    connection: Redis, queue: Queue, start_worker: StartWorker, shared_database: str
) -> None:
    """The connection pool is closed before each fork and at the end."""
    entry = database_from_url(shared_database)
    entry["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 2}}
    written = [queue.enqueue(jobs.write_model, f"user-{number}") for number in range(3)]
    worker = start_worker(settings={"DATABASES": {"default": entry}, "GRACEFUL_EXIT_HOOKS": [POOLED_HOOK]})
    wait_until(lambda: all(job.get_status() == "finished" for job in written), 30, lambda: worker.output)
    worker.signal()
    assert worker.wait(20) == 0, worker.output
    report = stored(worker)
    assert report.outcome == "clean"
    assert ReportedHook.objects.get(report=report).outcome == "ok"
    assert "Traceback" not in worker.output
