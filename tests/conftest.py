"""Fixtures of all tiers: a server per test process, clean for each test, and real worker processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connections
from django_rq import get_queue
from rq import Queue

from demo_project.database_url import url_of_database
from tests.support.processes import Leftovers, WorkerProcess
from tests.support.server import Server

StartWorker = Callable[..., WorkerProcess]


def pytest_configure(config: pytest.Config) -> None:
    """Make the place that this process keeps its files in."""
    Path(django_settings.RUN_DIR).mkdir(parents=True, exist_ok=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing on disk."""
    shutil.rmtree(django_settings.RUN_DIR, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # pragma: no cover - seen only where a test skips
    """With ``GRACEFUL_NO_SKIP`` a test that skips has failed: nothing goes unseen where it is set."""
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    if os.environ.get("GRACEFUL_NO_SKIP") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be skipped: {report.longrepr}"
    return report  # type: ignore[return-value]


def use_server(url: str) -> None:
    """Point every queue of this process at a server."""
    for queue in django_settings.RQ_QUEUES.values():
        queue["URL"] = url


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """The server of this test process. A test that stops, kills or pauses it takes ``own_valkey`` instead."""
    with Server() as server:
        yield server


@pytest.fixture
def connection(valkey: Server) -> Iterator[redis.Redis]:
    """A client of the server, which is empty; the queues of django-rq are on it."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        use_server(valkey.url)
        yield client


@pytest.fixture
def own_valkey() -> Iterator[Server]:
    """A server for this test alone, to be stopped, killed or paused; the queues of django-rq are on it."""
    with Server() as server:
        use_server(server.url)
        yield server


@pytest.fixture
def queues(connection: redis.Redis) -> dict[str, Queue]:
    """The queues default, high and low, empty."""
    return {name: get_queue(name) for name in ("default", "high", "low")}


@pytest.fixture
def queue(queues: dict[str, Queue]) -> Queue:
    """The queue default, empty."""
    return queues["default"]


@pytest.fixture
def shared_database(transactional_db: None) -> str:
    """The test database as a URL: rows are really committed, so that a worker process and the test see each other's."""
    return url_of_database(connections["default"].settings_dict)


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker process and wait until it takes jobs.

    Of the call: ``queues``, ``options``, ``command`` as in :class:`WorkerProcess`; ``settings``, Django settings that
    this process has otherwise; ``server``, another than the test's; ``wait=False``, do not wait for it; and
    ``wrapped`` as in :class:`DjangoProcess`. The test
    database is the worker's where the test uses ``shared_database``; otherwise it has an empty one in memory.
    At the end whatever still runs is killed; a worker that ended and left processes behind fails the test.
    """
    workers: list[WorkerProcess] = []
    database = request.getfixturevalue("shared_database") if "shared_database" in request.fixturenames else "sqlite://"

    def start(
        queues: Sequence[str] = ("default",),
        options: Sequence[str] = (),
        *,
        command: str = "runworker_graceful",
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        server: Server | None = None,
        name: str | None = None,
        wait: bool = True,
        **process: Any,
    ) -> WorkerProcess:
        if server is None:
            own = "own_valkey" in request.fixturenames
            server = request.getfixturevalue("own_valkey" if own else "valkey")
            if not own:
                request.getfixturevalue("connection")
        worker = WorkerProcess(
            server.client(),
            queues,
            options,
            command=command,
            name=name,
            output=tmp_path / f"worker-{len(workers)}.log",
            environment={
                "DATABASE_URL": database,
                "TEST_REDIS_URL": server.url,
                "TEST_RUN_DIR": str(django_settings.RUN_DIR),
                **(environment or {}),
            },
            settings={"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool"), **(settings or {})},
            **process,
        )
        workers.append(worker)
        if wait:
            worker.wait_started()
        return worker

    yield start
    errors = []
    for worker in workers:
        try:
            worker.close()
        except Leftovers as error:
            errors.append(str(error))
    if errors:
        pytest.fail("\n\n".join(errors))
