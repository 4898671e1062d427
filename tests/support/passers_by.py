"""Whoever else looks at RQ's registries in a usual installation, and time that passes on the server."""

from __future__ import annotations

from io import StringIO

import redis
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django_rq import get_queue
from django_rq.contrib.prometheus import RQCollector
from django_rq.utils import get_statistics
from rq import Queue, Worker


def let_pass(connection: redis.Redis, seconds: int) -> None:
    """Let so many seconds pass on the server: scores that are times go back, and what would have expired is gone.

    The heartbeats of graceful workers too, so that whoever has died is silent for so long.
    """
    for key in connection.keys("*"):
        ttl = connection.ttl(key)
        if 0 <= ttl <= seconds:
            connection.delete(key)
            continue
        if ttl > seconds:
            connection.expire(key, ttl - seconds)
        if key.startswith((b"rq:wip:", b"rq:executions:", b"rq:failed:", b"graceful:beats", b"graceful:suspects")):
            for member in connection.zrange(key, 0, -1):
                connection.zincrby(key, -seconds, member)
        if b":first_seen:" in key:
            connection.set(key, float(connection.get(key) or 0) - seconds, keepttl=True)


def everybody_looks(connection: redis.Redis, queue: Queue) -> None:
    """A scrape, ``rqstats``, the statistics view, the dashboard and a stock worker's maintenance, once each."""
    connection.delete(f"rq:clean_registries:{queue.name}")
    list(RQCollector().collect())  # type: ignore[no-untyped-call]
    call_command("rqstats", stdout=StringIO())
    get_statistics(run_maintenance_tasks=True)
    client = Client()
    user, _ = get_user_model().objects.get_or_create(username="operator", is_staff=True, is_superuser=True)
    client.force_login(user)
    for page in (
        "",
        "stats.json",
        "metrics",
        *(f"queues/0/{name}" for name in ("", "started/", "failed/")),
    ):
        assert client.get(f"/django-rq/{page}").status_code == 200, page
    assert client.get("/django-rq/workers/0/").status_code == 200
    worker = Worker([get_queue(queue.name)], connection=connection)
    worker.clean_registries()
    connection.delete(f"rq:clean_registries:{queue.name}")
    worker.run_maintenance_tasks()
