"""How much memory a process has resident, its peak, and what its control group allows; all in bytes.

Linux: ``statm`` of proc_pid_statm(5), and cgroups(7). macOS: ``proc_pidinfo`` of libproc, and no control groups.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

MEGABYTE = 1024 * 1024
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
"""getrusage(2) gives ``ru_maxrss`` in kilobytes, on macOS in bytes."""
UNLIMITED = 2**60
"""Version 1 of control groups says so where there is no limit: the largest multiple of a page below 2**63."""
PROC_PIDTASKINFO = 4
"""``sys/proc_info.h`` of macOS; ``struct proc_taskinfo`` has 96 bytes, of which the second 8 are the resident size."""
TASKINFO_BYTES = 96


def resident(pid: int | None = None) -> int | None:
    """The resident set of a process, the current one unless a pid is given; None if it cannot be read."""
    try:
        if sys.platform == "linux":
            with open(f"/proc/{os.getpid() if pid is None else pid}/statm", "rb") as statm:
                return int(statm.read().split()[1]) * resource.getpagesize()
        return _resident_by_libproc(os.getpid() if pid is None else pid)
    except (OSError, ValueError, IndexError):
        return None


def _resident_by_libproc(pid: int) -> int | None:
    import ctypes  # On macOS alone: other workers are not to pay for its import.

    info = ctypes.create_string_buffer(TASKINFO_BYTES)
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib")
    read = libproc.proc_pidinfo(pid, PROC_PIDTASKINFO, ctypes.c_uint64(0), info, TASKINFO_BYTES)
    return int.from_bytes(info.raw[8:16], sys.byteorder) if read == TASKINFO_BYTES else None


def peak(usage: resource.struct_rusage | None = None) -> int:
    """The most that was ever resident, of an ended process by its ``usage`` (wait4(2)), or else of this one.

    Of this one by ``VmHWM`` (proc_pid_status(5)) where there is that: ``ru_maxrss`` outlives an execve(2), and so is at
    least what the process had resident that has started this one.
    """
    if usage is None and sys.platform == "linux":
        try:
            with open("/proc/self/status", "rb") as status:
                for line in status:
                    if line.startswith(b"VmHWM:"):
                        return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            pass
    return (usage or resource.getrusage(resource.RUSAGE_SELF)).ru_maxrss * PEAK_UNIT


def control_group_limit(
    groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """The least that the process's control group, or one above it, allows; None without a limit, or if unknown.

    Args:
        groups: where control groups are mounted.
        membership: which groups the process is in, see cgroups(7). In a container it may name groups of the host,
            which are not there: then those at the mount itself count, which are the container's.
    """
    try:
        lines = membership.read_text().splitlines()
    except (OSError, ValueError):
        return None
    found: list[int] = []
    for line in lines:
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers == "":
            top, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        within = [each for each in (group, *group.parents) if each.is_relative_to(top)]
        found += [limit for each in within for limit in _limit(each / name)]
    return min(found, default=None)


def _limit(file: Path) -> list[int]:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # "max" where there is none.
        return []
    return [limit] if limit < UNLIMITED else []
