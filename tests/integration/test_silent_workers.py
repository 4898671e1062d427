"""Workers that are dead and of which nobody has closed the report."""

from __future__ import annotations

from io import StringIO

import pytest
import redis
from django.core.management import CommandError, call_command

from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS, Heartbeat, dead_workers
from graceful.worker.cluster.process_identity import Process
from graceful.worker.cluster.registration import HEARTBEATS_KEY, Registration


def registered(connection: redis.Redis, name: str, *, process: Process | None = None) -> Registration:
    registration = Registration.here(f"id-of-{name}", name, ("default",))
    registration = registration._replace(process=process or registration.process)
    Heartbeat(connection, registration).beat()
    return registration


def test_silent_workers_are_told_from_living_ones(connection: redis.Redis) -> None:
    """Dead workers are listed: those gone, and those elsewhere whose heartbeat is overdue; living ones are not."""
    here = Process.here()
    registered(connection, "alive")
    gone = registered(connection, "gone", process=here._replace(started="1"))
    registered(connection, "elsewhere", process=Process("another machine", 1, "1"))
    cut_off = registered(connection, "cut-off", process=Process("another machine", 2, "2"))
    connection.zincrby(HEARTBEATS_KEY, -2 * OVERDUE_SECONDS, cut_off.worker_id)
    connection.hset("graceful:workers", "hostile", b"\xff")
    assert sorted(each.worker for each in dead_workers(connection)) == [cut_off.worker, gone.worker]


@pytest.mark.django_db
def test_the_report_command_tells_of_them(connection: redis.Redis) -> None:
    """``shutdown_report`` warns of killed workers whose reports are not closed yet."""
    registered(connection, "gone", process=Process.here()._replace(started="1"))
    err = StringIO()
    with pytest.raises(CommandError, match="no shutdown report yet"):
        call_command("shutdown_report", "--last", stderr=err)
    assert "Worker gone was killed" in err.getvalue()
