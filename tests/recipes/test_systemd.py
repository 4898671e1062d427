"""The recipe's unit under a real systemd, which is process 1 of a PID namespace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from graceful.core import report_json
from graceful.reports.journal import JOURNAL_KEY
from tests.recipes.test_process_1 import NAMESPACE
from tests.support import jobs
from tests.support.processes import ROOT
from tests.support.recipe_files import only
from tests.support.server import Server
from tests.support.waiting import wait_until

UNIT = "shop-worker@1.service"
TARGETS = ("basic", "final", "network-online", "ours", "shutdown", "sysinit", "umount")
"""Those that it asks for by itself, and what it starts with; all of them empty."""
BOOT = """
mount -t tmpfs tmpfs /run
export container=graceful-tests SYSTEMD_UNIT_PATH={units} SYSTEMD_LOG_TARGET=null
exec /lib/systemd/systemd --system --unit=ours.target --show-status=no
"""


class Systemd:
    """A systemd with the unit of the recipe, whose lines can be changed.

    Args:
        directory: for its files.
        server: the workers' Redis.
    """

    def __init__(self, directory: Path, server: Server) -> None:
        self._units, self._server, self._directory = directory / "units", server, directory
        self._units.mkdir()
        for name in TARGETS:
            (self._units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        self._process = subprocess.Popen(
            [*NAMESPACE, "--mount", "--ipc", "--uts", "--cgroup", "/bin/sh", "-c", BOOT.format(units=self._units)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._init = int(wait_until(lambda: children.read_text().split(), 5, "its process 1")[0])
        wait_until(lambda: self.ctl("is-system-running").stdout == "running\n", 10, lambda: self.output)

    @property
    def output(self) -> str:
        log = self._directory / "worker.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return f"{text}\n{self.ctl('status', '--no-pager', UNIT).stdout}"

    @property
    def ends(self) -> list[str]:
        """How systemd saw each end of the worker: the unit's result, and its exit code or signal."""
        log = self._directory / "ends.log"
        return log.read_text().splitlines() if log.exists() else []

    def install(self, settings: dict[str, Any], **lines: str) -> None:
        """Write the recipe's unit.

        Args:
            settings: Django settings of the worker.
            lines: of the unit's [Service], in place of those of the recipe, or besides them.
        """
        unit = only("recipes/systemd", "ini")
        own = {
            "User": None,
            "WorkingDirectory": str(ROOT),
            "ExecStart": f"{sys.executable} -m django runworker_graceful default",
            "StandardOutput": f"append:{self._directory}/worker.log",
            "StandardError": "inherit",
            "ExecStopPost": f"/bin/sh -c 'echo $SERVICE_RESULT $EXIT_STATUS >>{self._directory}/ends.log'",
            **lines,
        }
        for key, value in own.items():
            line = "" if value is None else f"{key}={value}\n"
            unit, found = re.subn(rf"^{key}=.*\n", lambda _, line=line: line, unit, flags=re.MULTILINE)
            assert found or value is not None, f"the recipe has no {key}"
            if not found:
                unit = unit.replace("[Service]\n", f"[Service]\n{line}")
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": "sqlite://",
            "TEST_REDIS_URL": self._server.url,
            "TEST_RUN_DIR": str(self._directory),
            "TEST_GRACEFUL_SETTINGS": json.dumps({"GRACEFUL_SPOOL_DIR": f"{self._directory}/spool", **settings}),
        }
        (self._directory / "environment").write_text(
            "".join(f"{name}='{value}'\n" for name, value in environment.items())
        )
        unit = re.sub(r"^Environment=DJANGO_SETTINGS_MODULE=.*\n", "", unit, flags=re.MULTILINE)
        unit = unit.replace("[Service]\n", f"[Service]\nEnvironmentFile={self._directory}/environment\n")
        (self._units / "shop-worker@.service").write_text(unit)
        self.ctl("daemon-reload", check=True)

    def ctl(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """``systemctl``."""
        enter = ["nsenter", "--target", str(self._init), "--pid", "--mount", "--cgroup"]
        done = subprocess.run(
            [*enter, "systemctl", *arguments],
            env={**os.environ, "SYSTEMD_IGNORE_CHROOT": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}\n{self.output}"
        return done

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.ctl("show", "--property", name, "--value", UNIT).stdout.strip()

    def close(self) -> None:
        """End it and all that it has started: the kernel ends a namespace with its process 1."""
        os.kill(self._init, signal.SIGKILL)
        self._process.wait(10)


@pytest.fixture
def systemd(valkey: Server, connection: redis.Redis, tmp_path: Path) -> Iterator[Systemd]:
    booted = Systemd(tmp_path, valkey)
    yield booted
    booted.close()


def codes(connection: redis.Redis) -> list[int | None]:
    """The exit codes in the reports; there is no database to store them in."""
    return [report_json.load(text).exit_code for text in connection.hvals(JOURNAL_KEY)]


def test_a_job_that_is_interrupted(systemd: Systemd, connection: redis.Redis, queue: Queue) -> None:
    """The unit has started once the worker takes jobs; a stop that interrupts one leaves it in order."""
    systemd.install({"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0})
    systemd.ctl("start", UNIT, check=True)
    assert connection.scard("rq:workers") == 1
    wait_until(lambda: systemd.show("StatusText") == "takes jobs", 15, lambda: systemd.output)
    job = queue.enqueue(jobs.napping, 60)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 20, lambda: systemd.output)
    systemd.ctl("stop", UNIT, check=True)
    assert systemd.show("ActiveState") == "inactive"
    assert systemd.ends == ["success 75"]
    assert codes(connection) == [75]
    assert queue.job_ids == [job.id]


def test_a_stop_timeout_that_is_too_short(systemd: Systemd, connection: redis.Redis, queue: Queue) -> None:
    """Where TimeoutStopSec is shorter than the grace period, systemd waits for that all the same."""
    systemd.install({"GRACEFUL_TIMEOUT": 30.0}, TimeoutStopSec="1")
    systemd.ctl("start", UNIT, check=True)
    job = queue.enqueue(jobs.until_released, "go", 60)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 20, lambda: systemd.output)
    systemd.ctl("stop", "--no-block", UNIT, check=True)
    wait_until(lambda: systemd.show("ActiveState") == "deactivating", 5, lambda: systemd.output)
    # Three times systemd's own timeout, by the clock that systemd goes by.
    words = wait_until(lambda: re.fullmatch(r"draining, (2[0-6]) s left", systemd.show("StatusText")), 15)
    assert words
    connection.rpush("go", 1)
    wait_until(lambda: systemd.show("ActiveState") == "inactive", 10, lambda: systemd.output)
    assert systemd.ends == ["success 0"]
    assert job.get_status(refresh=True) == "finished"


def test_a_worker_that_hangs(systemd: Systemd, connection: redis.Redis) -> None:
    """A worker that sends no keep-alive is ended by the watchdog, and started anew."""
    systemd.install({}, WatchdogSec="2", TimeoutAbortSec="1")
    systemd.ctl("start", UNIT, check=True)
    first = connection.smembers("rq:workers")
    systemd.ctl("kill", "--signal", "STOP", "--kill-whom", "main", UNIT, check=True)
    wait_until(lambda: systemd.show("NRestarts") == "1", 20, lambda: systemd.output)
    wait_until(lambda: connection.smembers("rq:workers") - first, 20, lambda: systemd.output)
    assert systemd.ends == ["watchdog ABRT"]


def test_wrong_settings(systemd: Systemd) -> None:
    """A unit whose settings are wrong does not start, and is not started again."""
    systemd.install({"GRACEFUL_TIMEOUT": -1})
    assert systemd.ctl("start", UNIT).returncode != 0
    wait_until(lambda: systemd.show("ActiveState") == "failed", 10, lambda: systemd.output)
    assert systemd.ends == ["exit-code 78"]
    assert systemd.show("NRestarts") == "0"


def test_a_pool(systemd: Systemd, connection: redis.Redis) -> None:
    """A pool's parent speaks for all; a reload replaces the workers and leaves the unit active."""
    command = f"{sys.executable} -m django runworker_graceful --workers 2 default"
    systemd.install({}, ExecStart=command, ExecReload="/bin/kill -HUP $MAINPID")
    systemd.ctl("start", UNIT, check=True)
    first = connection.smembers("rq:workers")
    assert len(first) == 2
    wait_until(lambda: systemd.show("StatusText") == "2 of 2 workers take jobs", 5, lambda: systemd.output)
    parent = systemd.show("MainPID")
    systemd.ctl("reload", UNIT, check=True)
    wait_until(lambda: not first & connection.smembers("rq:workers"), 40, lambda: systemd.output)
    wait_until(lambda: systemd.show("StatusText") == "2 of 2 workers take jobs", 20, lambda: systemd.output)
    assert (systemd.show("MainPID"), systemd.show("NRestarts")) == (parent, "0")
    systemd.ctl("stop", UNIT, check=True)
    assert systemd.ends == ["success 0"]
    assert connection.scard("rq:workers") == 0
