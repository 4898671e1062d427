"""For the tests of a project: its own worker as a real process, under real signals.

The pytest fixture ``graceful_process`` starts one; see :mod:`graceful.pytest_plugin`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from django_rq import get_connection
from redis import Redis

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import Journal

LOOK_SECONDS = 0.02


class WorkerProcess:
    """``runworker_graceful`` with the settings of ``DJANGO_SETTINGS_MODULE``, in a process of its own.

    It sees what those settings say, and so the project's own database and Redis unless the settings, or
    ``environment``, name others; it sees no data of a test's transaction that was not committed.

    Args:
        queues: names of its queues.
        options: further options of ``runworker_graceful``.
        environment: added to the environment.
        output: the file that takes its log.
    """

    def __init__(
        self, queues: Sequence[str], options: Sequence[str], environment: Mapping[str, str], output: Path
    ) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self._output = output
        self._connection: Redis = get_connection(queues[0])
        # What pytest has put on its path, for instance by its setting "pythonpath", is the worker's path too.
        path = os.pathsep.join(filter(None, sys.path))
        self._environ = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environment}
        command = [sys.executable, "-m", "django", "runworker_graceful", *queues, "--name", self.name, *options]
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Its log so far."""
        return self._output.read_text(errors="replace")

    def wait_started(self, seconds: float = 30.0) -> None:
        """Wait until it takes jobs.

        Raises:
            AssertionError: it has ended, or does not take jobs after so many seconds; the message has its log.
        """
        key = f"rq:worker:{self.name}"
        self.wait_until(lambda: self._connection.hget(key, "state") in (b"idle", b"busy", "idle", "busy"), seconds)

    def wait_until(self, predicate: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until ``predicate`` is true while the worker runs.

        Raises:
            AssertionError: it has ended, or ``predicate`` is false after so many seconds; the message has its log.
        """
        until = time.monotonic() + seconds
        while not predicate():
            if self._process.poll() is not None:
                raise AssertionError(f"the worker ended with exit code {self._process.returncode}:\n{self.output}")
            if time.monotonic() > until:
                raise AssertionError(f"nothing came of it within {seconds:g} s; the worker's log:\n{self.output}")
            time.sleep(LOOK_SECONDS)

    def send_signal(self, signum: int = signal.SIGTERM) -> None:
        """Send it a signal, as a platform does at a deploy."""
        self._process.send_signal(signum)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end.

        Returns:
            its exit code; negative if a signal ended it.

        Raises:
            AssertionError: it still runs after so many seconds; the message has its log.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs after {seconds:g} s; its log:\n{self.output}") from None

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and :meth:`wait`."""
        self.send_signal()
        return self.wait(seconds)

    @property
    def report(self) -> ShutdownReport | None:
        """Its shutdown report, from its own database, else as it stands in Redis; None if there is none."""
        command = [sys.executable, "-m", "django", "shutdown_report", "--worker", self.name, "--format", "json"]
        shown = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False)
        if shown.returncode == 0:
            return report_json.load(json.dumps(json.loads(shown.stdout)[0]))
        return next((each for each in Journal(self._connection).entries() if each.worker == self.name), None)

    def kill(self) -> None:
        """SIGKILL it and all that it started, if they still run."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
