"""The recipe for supervisord, run by supervisord itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import JOURNAL_KEY
from tests.support import jobs
from tests.support.processes import ROOT, pids_in_session
from tests.support.recipe_files import only
from tests.support.server import Server
from tests.support.waiting import wait_until

OF_THE_RECIPE = {"GRACEFUL_TIMEOUT": 115, "GRACEFUL_PLATFORM_TIMEOUT": 120}


def reports(connection: redis.Redis) -> list[ShutdownReport]:
    return [report_json.load(text) for text in connection.hvals(JOURNAL_KEY)]


class Supervisord:
    """supervisord with the recipe's program, in the foreground.

    Args:
        directory: for its files.
        server: the workers' Redis.
        settings: Django settings of the workers.
    """

    def __init__(self, directory: Path, server: Server, settings: dict[str, Any]) -> None:
        program = only("recipes/supervisor", "ini")
        for pattern, here in (
            (r"^command=\S+ manage.py", f"command={sys.executable} -m django"),
            (r"^directory=.*", f"directory={ROOT}"),
            (r"^user=.*\n", ""),
            (r'"shop.settings"', '"tests.settings"'),
        ):
            program, found = re.subn(pattern, here, program, flags=re.MULTILINE)
            assert found == 1
        own = f"[supervisord]\nlogfile={directory}/supervisord.log\npidfile={directory}/pid\nchildlogdir={directory}\n"
        config = directory / "supervisord.conf"
        config.write_text(f"{own}\n{program}redirect_stderr=true\n")
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(config)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": "sqlite://",
                "TEST_REDIS_URL": server.url,
                "TEST_RUN_DIR": str(django_settings.RUN_DIR),
                "TEST_GRACEFUL_SETTINGS": json.dumps({"GRACEFUL_SPOOL_DIR": f"{directory}/spool", **settings}),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return "\n".join(path.read_text() for path in self.directory.glob("*.log"))

    def close(self) -> None:
        for pid in [self.process.pid, *pids_in_session(self.process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.fixture
def supervise(connection: redis.Redis, valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Supervisord]]:
    """Start supervisord with its two workers; of the call: their settings."""
    started: list[Supervisord] = []

    def start(**settings: Any) -> Supervisord:
        supervisord = Supervisord(tmp_path, valkey, settings)
        started.append(supervisord)
        wait_until(lambda: connection.scard("rq:workers") == 2, 20, lambda: supervisord.output)
        return supervisord

    yield start
    for supervisord in started:
        supervisord.close()


def test_a_stop_reaches_the_workers(
    supervise: Callable[..., Supervisord], connection: redis.Redis, queue: Queue
) -> None:
    """supervisord's stop is a SIGTERM to each worker, and no more while it waits for them."""
    supervisord = supervise(**OF_THE_RECIPE)
    job = queue.enqueue(jobs.until_released, "go", 60)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: supervisord.output)
    supervisord.process.terminate()
    wait_until(lambda: supervisord.output.count("shutdown requested (SIGTERM)") == 2, 10, lambda: supervisord.output)
    wait_until(lambda: "waiting for shop-worker-" in supervisord.output, 20, lambda: supervisord.output)
    connection.rpush("go", 1)
    assert supervisord.process.wait(20) == 0, supervisord.output
    assert job.get_status(refresh=True) == "finished"
    assert [(each.signal, each.exit_code) for each in reports(connection)] == [("SIGTERM", 0)] * 2
    assert "SIGKILL" not in supervisord.output


def test_a_worker_that_ends_is_started_again(supervise: Callable[..., Supervisord], connection: redis.Redis) -> None:
    """A worker that is killed has a successor, which closes its report."""
    supervisord = supervise(**OF_THE_RECIPE)
    names = connection.smembers("rq:workers")
    wait_until(lambda: supervisord.output.count("entered RUNNING state") == 2, 15, lambda: supervisord.output)
    os.kill(reports(connection)[0].pid, signal.SIGKILL)
    wait_until(lambda: connection.smembers("rq:workers") - names, 20, lambda: supervisord.output)
    wait_until(
        lambda: sorted(str(each.outcome) for each in reports(connection)) == ["None", "None", "killed"],
        20,
        lambda: supervisord.output,
    )


@pytest.mark.parametrize(("settings", "warned"), [({}, True), (OF_THE_RECIPE, False)])
def test_the_check_knows_supervisord(
    settings: dict[str, Any], warned: bool, supervise: Callable[..., Supervisord]
) -> None:
    """A worker sees that supervisord runs it, and warns of its ten seconds unless the settings say otherwise."""
    supervisord = supervise(**settings)
    assert ("since supervisord sends SIGKILL after 10 s unless stopwaitsecs is set" in supervisord.output) == warned
