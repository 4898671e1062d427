"""Which machine this is, and whether a process on it is still the one that it was.

A pid alone says little: it is used again, and each container counts its own. So a process is known by its pid, the
time at which it was started and the machine; the machine by its boot and, on Linux, its pid namespace
(``pid_namespaces(7)``). Whether it lives has three answers: what could not be found out is not death.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path


class Fate(Enum):
    """What can be said of a process."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """Nothing is proven: only its heartbeat can tell."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it can be told from others.

    Args:
        machine: :func:`machine` where it runs.
        pid: its pid there.
        started: when it was started, in the system's own form; empty where it could not be learnt.
        host: the host's name; empty where a version before this one wrote it down. Virtual machines that were cloned
            while they ran have the same boot id, and nearly always another name.
    """

    machine: str
    pid: int
    started: str
    host: str = ""

    @classmethod
    def here(cls, pid: int | None = None) -> Process:
        """A process of this machine; this one unless a pid is given."""
        pid = os.getpid() if pid is None else pid
        return cls(machine(), pid, start_time(pid), socket.gethostname())

    @property
    def local(self) -> bool:
        """Whether it can be looked at from here."""
        return self.machine == machine() and self.host in ("", socket.gethostname())

    @property
    def fate(self) -> Fate:
        """Whether it lives; unknown wherever that could not be found out, and of a process of another machine."""
        if not self.local:
            return Fate.UNKNOWN
        started, fate = _look(self.pid)
        if fate is Fate.ALIVE and started != self.started:
            # The pid is another's by now, unless it could not be learnt at the start whose it was.
            return Fate.DEAD if self.started else Fate.UNKNOWN
        return fate

    def dead(self, *, overdue: bool) -> bool:
        """Whether it counts as dead: that is proven, or nothing is known of it and its heartbeat is ``overdue``."""
        fate = self.fate
        return fate is Fate.DEAD or (overdue and fate is Fate.UNKNOWN)


@cache
def machine() -> str:
    """This machine, this boot of it and this pid namespace, as one word."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    boot = _output("sysctl", "-n", "kern.bootsessionuuid").strip()
    return f"{boot or socket.gethostname()}/0"


def start_time(pid: int) -> str:
    """When a process was started; empty where there is none, only a zombie is left of it, or it cannot be learnt."""
    return _look(pid)[0]


def _look(pid: int) -> tuple[str, Fate]:
    """A process's start time, and its fate; the start time of one that is not alive for sure is empty."""
    if sys.platform == "linux":
        try:
            # proc_pid_stat(5): the second field is a name in parentheses that may hold anything; state is the
            # third and starttime the 22nd.
            with open(f"/proc/{pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
            state, started = fields[0].decode(), fields[19].decode()
        except (OSError, IndexError, UnicodeDecodeError):
            # Nothing is said by this alone: no descriptor left, no access, or hidden (``hidepid=`` of proc(5),
            # ``ProtectProc=`` of systemd.exec(5)), where what lives is reported as not there.
            return "", _ask(pid)
    else:
        words = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).split(maxsplit=1)
        if len(words) < 2:
            return "", _ask(pid)  # No such process, or ps took too long.
        state, started = words[0][:1], words[1].strip()
    return ("", Fate.DEAD) if state in ("Z", "X") else (started, Fate.ALIVE)


def _ask(pid: int) -> Fate:
    """The fate of a process that could not be looked at: kill(2) finds those too that ``/proc`` hides."""
    try:
        if pid > 0:  # 0 and below are groups of processes.
            os.kill(pid, 0)
    except ProcessLookupError:
        return Fate.DEAD
    except (OSError, OverflowError):
        pass
    return Fate.UNKNOWN


def oom_kills() -> int | None:
    """How many processes of this control group the kernel killed for want of memory; None where it does not say.

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
