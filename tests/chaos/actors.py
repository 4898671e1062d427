"""Everybody else at a usual installation: what reads and cleans RQ's registries, and what enqueues, beside the workers.

Those that are processes of their own are forked by the forkserver; :class:`User` is a thread of the driver.
Each writes a ``turn`` into the ledger whenever it has done once what it is there for.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections.abc import Callable
from importlib import import_module
from wsgiref.simple_server import WSGIRequestHandler, make_server

import redis
from django.conf import settings
from django.contrib.auth.models import User as Account
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job

from tests.chaos.ledger import Ledger
from tests.chaos.plan import QUEUES

PAUSE_SECONDS = 0.03
TOKEN = "chaos"
PAGES = ("", "stats.json", "metrics", "queues/0/", "queues/0/started/", "queues/0/failed/", "workers/0/")
CRON_CONFIG = "tests.chaos.cron"


def warm_up() -> None:
    """Import what the actors need, once for all of them."""
    for name in ("django_rq.contrib.prometheus", "django_rq.urls", "prometheus_client"):
        import_module(name)


def scrape() -> None:
    """Prometheus asks django-rq's collector, again and again."""
    from django_rq.contrib.prometheus import RQCollector
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(RQCollector())
    _again_and_again("scrape", lambda: generate_latest(registry))


def dashboard() -> None:
    """Somebody has django-rq's dashboard open: a web server with its pages and ``stats.json``, asked by HTTP."""
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    settings.MIDDLEWARE = [f"{__name__}.as_staff"]
    settings.RQ_API_TOKEN = TOKEN

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask() -> None:
        for page in PAGES:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request("GET", f"/django-rq/{page}", headers={"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            response.read()
            connection.close()
            if response.status != 200:
                # RQ's own pages do not expect a job to vanish while they are rendered, nor Redis to be away.
                raise redis.exceptions.RedisError(f"{page}: {response.status}")

    _again_and_again("dashboard", ask)


def as_staff(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that spares the dashboard its login and its session."""

    def respond(request: HttpRequest) -> HttpResponse:
        request.user = Account(pk=1, username="staff", is_staff=True, is_active=True, is_superuser=True)
        return get_response(request)

    return respond


def cron() -> None:
    """RQ's cron scheduler, which enqueues a job at once and then every second."""
    execute_from_command_line(["manage.py", "rqcron", CRON_CONFIG])


def _again_and_again(name: str, act: Callable[[], object]) -> None:
    ledger = Ledger.of_process()
    while True:
        try:
            act()
            ledger.note("turn", name)
        except (redis.exceptions.RedisError, NoSuchJobError, OSError) as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        time.sleep(PAUSE_SECONDS)


ACTORS: dict[str, Callable[[], None]] = {"scrape": scrape, "dashboard": dashboard, "cron": cron}


class User(threading.Thread):
    """Somebody who stops or cancels a few jobs at random instants.

    Args:
        connection: a client.
        verb: ``"stop job"`` or ``"cancel"``.
        ids: of the jobs.
        rng: for the instants and the jobs.
    """

    def __init__(self, connection: redis.Redis, verb: str, ids: list[str], rng: random.Random) -> None:
        super().__init__(name=f"chaos-{verb}", daemon=True)
        self._connection = connection
        self._act = {"stop job": self._stop_job, "cancel": self._cancel}[verb]
        self._ids = ids
        self._rng = rng
        self._leaving = threading.Event()
        self.touched: set[str] = set()
        """Ids of the jobs that it meant to stop or cancel."""

    def run(self) -> None:
        for _ in range(self._rng.randint(1, 4)):
            if self._leaving.wait(self._rng.choice((0.0, self._rng.uniform(0, 0.05), self._rng.uniform(0, 0.5)))):
                return
            try:
                self._act()
            except (redis.exceptions.RedisError, NoSuchJobError, InvalidJobOperation, OSError, ValueError):
                continue

    def leave(self) -> None:
        self._leaving.set()
        self.join(15)

    def _stop_job(self) -> None:
        """``rq.command.send_stop_job_command``, for a job that is being worked at."""
        started = [
            entry.decode().partition(":")[0]
            for name in QUEUES
            for entry in self._connection.zrange(f"rq:wip:{name}", 0, -1)
        ]
        if started:
            job_id = self._rng.choice(started)
            self.touched.add(job_id)
            send_stop_job_command(self._connection, job_id)

    def _cancel(self) -> None:
        job_id = self._rng.choice(self._ids)
        self.touched.add(job_id)
        Job.fetch(job_id, connection=self._connection).cancel()
