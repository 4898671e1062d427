"""Which machine this is, and whether a process on it is still the same one.

A pid alone is not enough: pids are reused, and each container has its own. So a process is identified by its pid, its
start time and the machine; the machine by its boot id and, on Linux, its pid namespace (``pid_namespaces(7)``).
Liveness has three answers: unknown is not dead.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from enum import Enum
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Liveness(Enum):
    """Whether a process is alive."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """Not proven either way: only its heartbeat can tell."""


class Process(NamedTuple):
    """The identity of a process.

    Args:
        machine: :func:`machine` where it runs.
        pid: its pid there.
        started: its start time, in the system's own form; empty if it could not be read.
        host: the host's name; empty if an earlier version registered it. Virtual machines cloned while running share
            the boot id, and nearly always differ in name.
    """

    machine: str
    pid: int
    started: str
    host: str = ""

    @classmethod
    def here(cls, pid: int | None = None) -> Process:
        """A process on this machine; the current one unless a pid is given."""
        pid = os.getpid() if pid is None else pid
        return cls(machine(), pid, start_time(pid), socket.gethostname())

    @property
    def local(self) -> bool:
        """Whether it can be inspected from here."""
        return self.machine == machine() and self.host in ("", socket.gethostname())

    @property
    def liveness(self) -> Liveness:
        """Whether it is alive; unknown if that could not be found out, and for a process on another machine."""
        if not self.local:
            return Liveness.UNKNOWN
        started, liveness = _inspect(self.pid)
        if liveness is Liveness.ALIVE and started != self.started:
            # The pid was reused, unless the start time could not be read when it registered.
            return Liveness.DEAD if self.started else Liveness.UNKNOWN
        return liveness

    def dead(self, *, overdue: bool) -> bool:
        """Whether it counts as dead: proven, or its liveness is unknown and its heartbeat ``overdue``."""
        liveness = self.liveness
        return liveness is Liveness.DEAD or (overdue and liveness is Liveness.UNKNOWN)


@cache
def machine() -> str:
    """This machine, this boot of it and this pid namespace, as one word."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    boot = _output("sysctl", "-n", "kern.bootsessionuuid").strip()
    return f"{boot or socket.gethostname()}/0"


def start_time(pid: int) -> str:
    """Start time of a process; empty if there is none, it is a zombie, or it cannot be read."""
    return _inspect(pid)[0]


def _inspect(pid: int) -> tuple[str, Liveness]:
    """A process's start time and liveness; the start time is empty unless it is certainly alive."""
    if sys.platform == "linux":
        try:
            # proc_pid_stat(5): the second field is a name in parentheses that may hold anything; state is the
            # third and starttime the 22nd.
            with open(f"/proc/{pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
            state, started = fields[0].decode(), fields[19].decode()
        except (OSError, IndexError, UnicodeDecodeError):
            # This alone proves nothing: no file descriptor left, no access, or hidden (``hidepid=`` of proc(5),
            # ``ProtectProc=`` of systemd.exec(5)), where living processes are reported as missing.
            return "", _probe(pid)
    else:
        words = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).split(maxsplit=1)
        if len(words) < 2:
            return "", _probe(pid)  # No such process, or ps took too long.
        state, started = words[0][:1], words[1].strip()
    return ("", Liveness.DEAD) if state in ("Z", "X") else (started, Liveness.ALIVE)


def _probe(pid: int) -> Liveness:
    """Liveness of a process that could not be inspected: kill(2) also finds those that ``/proc`` hides."""
    try:
        if pid > 0:  # 0 and below mean process groups.
            os.kill(pid, 0)
    except ProcessLookupError:
        return Liveness.DEAD
    except (OSError, OverflowError):
        pass
    return Liveness.UNKNOWN


def oom_kills() -> int | None:
    """How many processes of this control group the OOM killer has killed; None if unknown.

    ``memory.events`` of cgroup v2 (kernel documentation, cgroup-v2).
    """
    try:
        for line in Path("/sys/fs/cgroup/memory.events").read_text().splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
