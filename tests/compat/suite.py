"""Running RQ's suite in its venv, with one of two sets of worker classes, on servers of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.compat.environment import Home
from tests.support.server import Server

INSIDE = Path(__file__).with_name("inside")
TEST_SECONDS = 40
"""The longest test of RQ's takes 11 s. Where a test's time is over its process is ended, and it has failed."""
RUN_SECONDS = 600


@dataclass
class Results:
    """How tests went, by pytest's id."""

    outcomes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == "failed"}

    def add(self, test: str, outcome: str, text: str) -> None:
        """One phase of a test; the worst of them counts."""
        if outcome == "failed":
            self.texts[test] = text
        if self.outcomes.get(test) not in {"failed", "skipped"} or outcome == "failed":
            self.outcomes[test] = outcome

    def update(self, later: Results) -> None:
        """Replace what also ran later."""
        self.outcomes.update(later.outcomes)
        self.texts.update(later.texts)

    def summary(self) -> str:
        count = Counter(self.outcomes.values())
        return ", ".join(f"{count[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


class Suite:
    """The suite of one version of RQ.

    Args:
        home: its venv and tests.
        processes: so many tests at once.
    """

    def __init__(self, home: Home, processes: int) -> None:
        self._home = home
        self._processes = processes
        self._stack = ExitStack()
        self._servers: list[Server] = []

    def __enter__(self) -> Suite:
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="compat-")))
        for _ in range(self._processes):
            self._servers.append(self._stack.enter_context(Server({"databases": "17"})))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def run(self, classes: str, tests: Sequence[str] = ()) -> Results:
        """Run it.

        Args:
            classes: "graceful" or "stock".
            tests: only these; all when empty.

        Raises:
            RuntimeError: pytest could not start; its output is in the message.
            subprocess.TimeoutExpired: the suite took too long.
        """
        for server in self._servers:
            with server.client() as client:
                client.flushall()
        written = self._directory / "results"
        written.unlink(missing_ok=True)
        command = [str(self._home.venv / "bin/python"), "-m", "pytest", "-p", "compat_plugin", "-p", "no:cacheprovider"]
        # Not by an alarm: RQ's workers and jobs set alarms of their own.
        command += ["--quiet", "--timeout", str(TEST_SECONDS), "--timeout-method", "thread"]
        command += ["--numprocesses", str(self._processes), "--dist", "worksteal"]
        environment = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "TMPDIR", "USER"}}
        environment |= {
            "PATH": f"{self._home.venv / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{INSIDE}:{self._home.path}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "compat_settings",
            "COMPAT_CLASSES": classes,
            "COMPAT_DATABASE": str(self._directory / "db.sqlite3"),
            "COMPAT_PORTS": ",".join(str(server.port) for server in self._servers),
            "COMPAT_RESULTS": str(written),
        }
        log = self._directory / "log"
        with log.open("wb") as output:
            code = subprocess.run(
                [*command, *tests],
                cwd=self._home.source,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                timeout=RUN_SECONDS,
            ).returncode
        if code not in (0, 1) or not written.exists():
            raise RuntimeError(f"pytest ended with {code}:\n{log.read_text(errors='replace')[-4000:]}")
        results = Results()
        for line in written.read_text().splitlines():
            phase = json.loads(line)
            results.add(phase["test"], phase["outcome"], phase["text"])
        return results
