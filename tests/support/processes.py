"""Real worker processes, each in a session of its own, and nothing of them left at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import redis

from tests.support.waiting import NeverHappened, wait_until

ROOT = Path(__file__).resolve().parents[2]


class Leftovers(AssertionError):
    """A worker ended and left processes behind."""


def all_pids() -> list[int]:
    """Every live process on the machine; zombies, which only wait to be reaped, are no longer alive."""
    if sys.platform == "linux":
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _state(int(name)) not in ("Z", "X", "")]
    listing = subprocess.run(["ps", "-axo", "pid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, state, *_ in rows if not state.startswith("Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def cpu_seconds(pid: int) -> float:
    """How long a process has been computing, outside of the kernel."""
    # proc_pid_stat(5): utime is the 14th field, and the third is the first after the name.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def started_at(pid: int) -> str | None:
    """When a process was started, in the system's own form; None if there is none, or only a zombie is left of it.

    Raises:
        OSError: that could not be found out. It must not be taken for the process's end.
    """
    if sys.platform == "linux":
        try:
            # proc_pid_stat(5): state is the third field, starttime the 22nd.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
            raise  # It is there, and hidden from us (``hidepid``).
        return None if fields[0] in "ZX" else fields[19]
    words = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.split()
    return None if not words or words[0].startswith("Z") else " ".join(words[1:])


def pids_in_session(session: int) -> list[int]:
    """Live processes of a session. RQ's work horses have process groups of their own, but stay in the session."""
    found = []
    for pid in all_pids():
        try:
            if os.getsid(pid) == session:
                found.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and is not a zombie."""
    return pid in all_pids()


class DjangoProcess:
    """``python -m django ...`` with the test settings, as the leader of a session of its own.

    Args:
        arguments: what follows ``python -m django``.
        output: the file that takes stdout and stderr.
        environment: added to the environment.
        settings: Django settings that this process has otherwise; must be JSON.
        root: the checkout whose code runs.
        wrapped: makes the command line another one, for instance that of a shell.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        output: Path,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        root: Path = ROOT,
        wrapped: Callable[[list[str]], list[str]] = list,
    ) -> None:
        self.arguments = list(arguments)
        self.output_path = output
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        environ["TEST_GRACEFUL_SETTINGS"] = json.dumps(dict(settings or {}))
        environ.update(environment or {})
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                wrapped([sys.executable, "-m", "django", *self.arguments]),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=root,
                start_new_session=True,
            )
        self._cleared = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """What it printed and logged so far."""
        return self.output_path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for the signal that ended it, or None while it runs."""
        return self.process.poll()

    def signal(self, signum: int = SIGTERM) -> None:
        """Send a signal to this process alone."""
        self.process.send_signal(signum)

    def signal_group(self, signum: int = SIGTERM) -> None:
        """Send a signal to its process group, as ``kill -- -PGID`` does; RQ's horses have groups of their own."""
        os.killpg(self.pid, signum)

    def signal_session(self, signum: int = SIGTERM) -> None:
        """Send a signal to it and all its children, as systemd's ``KillMode=control-group`` does."""
        for pid in pids_in_session(self.pid):
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    def kill_session(self) -> None:
        """SIGKILL all of it, so that nobody of it sees another die, and wait for its end.

        Children first, while the leader is stopped. It is not enough to stop them all: when the leader ends, the kernel
        sends SIGHUP and SIGCONT to the stopped groups that it leaves orphaned (setpgid(2)), and under ``nohup`` SIGHUP
        is ignored, so that a horse would go on and requeue its job.
        """
        self.signal(SIGSTOP)
        for pid in self.children():
            os.kill(pid, SIGKILL)
            wait_until(lambda pid=pid: not is_alive(pid), 5)  # type: ignore[misc]
        self.signal(SIGKILL)
        self.wait()

    def children(self) -> list[int]:
        """Live processes of its session besides itself: horse, scheduler, what a job started."""
        return [pid for pid in pids_in_session(self.pid) if pid != self.pid]

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for its end and return the exit code.

        Raises:
            NeverHappened: it still runs after ``seconds``; the message has its output.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NeverHappened(f"{self!r} still runs after {seconds} s; its output:\n{self.output}") from None

    def wait_output(self, text: str, seconds: float = 15.0) -> None:
        """Wait until ``text`` stands in its output."""
        wait_until(lambda: text in self.output, seconds, lambda: f"{text!r} in the output of {self!r}:\n{self.output}")

    def clear(self) -> None:
        """SIGKILL whatever is left of its session; a test that leaves some on purpose calls this itself."""
        self._cleared = True
        for pid in pids_in_session(self.pid):
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(5)
        wait_until(lambda: not pids_in_session(self.pid), 5, f"everything of {self!r} is gone")

    def close(self) -> None:
        """End what is left of it.

        Raises:
            Leftovers: it had ended by itself, and a process of its session still runs.
        """
        left: list[int] = []
        if not self.running and not self._cleared:
            try:
                wait_until(lambda: not pids_in_session(self.pid), 3)
            except NeverHappened:
                left = pids_in_session(self.pid)
        self.clear()
        if left:
            raise Leftovers(f"{self!r} left processes {left} behind; its output:\n{self.output}")

    def __repr__(self) -> str:
        return f"<{' '.join(self.arguments)}, pid {self.pid}, exit code {self.exit_code}>"


class WorkerProcess(DjangoProcess):
    """``runworker_graceful``, or django-rq's ``rqworker``, under a name that is known from the start.

    Args:
        connection: a client of the server that the worker is on.
        queues: names of its queues, in order.
        options: further command line options.
        command: the management command.
    """

    def __init__(
        self,
        connection: redis.Redis,
        queues: Sequence[str] = ("default",),
        options: Sequence[str] = (),
        *,
        command: str = "runworker_graceful",
        name: str | None = None,
        **process: Any,
    ) -> None:
        self.name = name or f"worker-{uuid.uuid4().hex[:12]}"
        self.connection = connection
        super().__init__([command, *queues, "--name", self.name, *options], **process)

    @property
    def key(self) -> str:
        return f"rq:worker:{self.name}"

    @property
    def state(self) -> str:
        """RQ's word for the worker's state (started, idle, busy, suspended), empty where it is not registered."""
        return (self.connection.hget(self.key, "state") or b"").decode()

    @property
    def current_job(self) -> str:
        """The id of the job that it is at, or empty."""
        return (self.connection.hget(self.key, "current_job") or b"").decode()

    def wait_state(self, *states: str, seconds: float = 20.0) -> None:
        """Wait until the worker is in one of the states.

        Raises:
            NeverHappened: it is not, or its process has ended.
        """

        def there() -> bool:
            if not self.running:
                raise NeverHappened(f"{self!r} ended before it was {' or '.join(states)}; its output:\n{self.output}")
            return self.state in states

        wait_until(there, seconds, lambda: f"{self!r} is {' or '.join(states)}; its output:\n{self.output}")

    def wait_started(self, seconds: float = 20.0) -> None:
        """Wait until it takes jobs: idle in its queues, or at its first job."""
        self.wait_state("idle", "busy", seconds=seconds)
