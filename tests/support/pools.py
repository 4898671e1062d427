"""Pools of workers that a test starts."""

from __future__ import annotations

from io import StringIO

import redis
from django.core.management import call_command
from rq import Worker

from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.rows import record_of
from tests.conftest import StartWorker
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until


def workers(connection: redis.Redis) -> dict[str, int]:
    """The workers that RQ lists and that take jobs, with their pids."""
    found = Worker.all(connection=connection)
    return {each.name: each.pid for each in found if each.pid and each.get_state() in ("idle", "busy")}


def start_pool(
    start_worker: StartWorker, connection: redis.Redis, number: int = 2, *options: str, **settings: object
) -> WorkerProcess:
    """A pool whose workers take jobs."""
    pool = start_worker(options=["--workers", str(number), *options], settings=settings, name="pool", wait=False)
    wait_until(lambda: len(workers(connection)) == number, 20, lambda: pool.output)
    return pool


def reports() -> list[ShutdownReport]:
    call_command("archive_reports", stdout=StringIO())  # Those that found the database busy.
    return [record_of(row) for row in ArchivedReport.objects.prefetch_related("hooks", "jobs")]
