"""Worker processes by the dozen: forked from one process that has imported everything, so a start costs milliseconds.

One question, one answer: that is all a test needs. The chaos suite has its own (``tests/chaos/forkserver.py``), which
reports ends as they happen, and starts processes under another user, clock or settings; one for both would be longer
than the two.

``python -m tests.support.forkserver`` reads one JSON object a line on its standard input, and answers with one a line.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.processes import ROOT, pids_in_session
from tests.support.waiting import NeverHappened, wait_until


class ForkServer:
    """Starts worker processes, each the leader of a session of its own.

    Args:
        output: the file that takes stdout and stderr of all of them.
        environment: added to the environment.
        settings: Django settings that these processes have otherwise; must be JSON.
    """

    def __init__(self, output: Path, environment: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environ["TEST_GRACEFUL_SETTINGS"] = json.dumps(dict(settings))
        self.output_path = output
        self.sessions: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkserver", str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environ, **environment},
            cwd=ROOT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the forkserver is gone"}')
        if "error" in answer:
            raise NeverHappened(f"{answer['error']}; output of the processes:\n{self.output[-20000:]}")
        return answer

    def start(self, *arguments: str) -> int:
        """Start a management command; returns its pid."""
        pid = int(self._ask(start=list(arguments))["pid"])
        self.sessions.append(pid)
        return pid

    def wait(self, pid: int, seconds: float = 20.0) -> tuple[int, float]:
        """Wait for the end of a process: its exit code (negative for a signal), and when that was (monotonic).

        Raises:
            NeverHappened: it still runs.
        """
        answer = self._ask(wait=pid, seconds=seconds)
        return int(answer["code"]), float(answer["at"])

    def close(self) -> None:
        """SIGKILL whatever is left."""
        for session in (*self.sessions, self._process.pid):
            for pid in pids_in_session(session):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self._process.wait(5)
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        wait_until(lambda: not any(map(pids_in_session, self.sessions)), 5, "all workers are gone")

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _main(output: str) -> None:
    import django
    from django.core.management import execute_from_command_line, load_command_class

    # Until a worker has its own handlers, SIGINT is to end it as SIGTERM does. A KeyboardInterrupt would at times
    # be raised in the callback of a weak reference, where it is printed and forgotten.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    django.setup()
    # What the commands import is imported once, here.
    load_command_class("graceful", "runworker_graceful")
    load_command_class("django_rq", "rqworker")
    gc.collect()
    gc.freeze()  # So that a thousand processes can share its pages: no collection in one of them writes to these.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(answers.fileno(), False)
    for line in iter(sys.stdin.readline, ""):
        question = json.loads(line)
        if "start" in question:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.dup2(nothing, 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                answers.close()
                try:
                    execute_from_command_line(["manage.py", *question["start"]])
                except SystemExit as ended:
                    os._exit(int(ended.code or 0))
                os._exit(0)
            # Whoever signals its session must not find it empty.
            while os.getsid(pid) != pid:
                time.sleep(0.0005)
            print(json.dumps({"pid": pid}), file=answers)
            continue
        pid = question["wait"]
        descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        until = time.monotonic() + question["seconds"]
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            at = time.monotonic()
            if found or at > until:
                break
            if descriptor is None:
                time.sleep(0.002)
            else:
                select.select([descriptor], [], [], until - at)
        if descriptor is not None:
            os.close(descriptor)
        if found:
            print(json.dumps({"code": os.waitstatus_to_exitcode(status), "at": at}), file=answers)
        else:
            print(json.dumps({"error": f"process {pid} still runs after {question['seconds']} s"}), file=answers)


if __name__ == "__main__":
    _main(sys.argv[1])
