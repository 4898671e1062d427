"""Which machine this is, and whether a process on it is still the one that it was.

A pid alone says little: it is used again, and each container counts its own. So a process is known by its pid, the
time at which it was started and the machine; the machine by its boot and, on Linux, its pid namespace
(``pid_namespaces(7)``).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it can be told from others.

    Args:
        machine: :func:`machine` where it runs.
        pid: its pid there.
        started: when it was started, in the system's own form; empty where it could not be learnt.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def here(cls, pid: int | None = None) -> Process:
        """A process of this machine; this one unless a pid is given."""
        pid = os.getpid() if pid is None else pid
        return cls(machine(), pid, start_time(pid))

    @property
    def local(self) -> bool:
        """Whether it can be looked at from here."""
        return self.machine == machine()

    @property
    def gone(self) -> bool:
        """Whether it is certain that it has ended: it is local, and its pid is free, a zombie, or another's."""
        return self.local and start_time(self.pid) != self.started


@cache
def machine() -> str:
    """This machine, this boot of it and this pid namespace, as one word."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    boot = _output("sysctl", "-n", "kern.bootsessionuuid").strip()
    return f"{boot or socket.gethostname()}/0"


def start_time(pid: int) -> str:
    """When a process was started; empty if there is none, or only a zombie is left of it."""
    if sys.platform == "linux":
        try:
            # proc_pid_stat(5): the second field is a name in parentheses that may hold anything; state is the
            # third and starttime the 22nd.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    words = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).split(maxsplit=1)
    return "" if len(words) < 2 or words[0].startswith("Z") else words[1].strip()


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
