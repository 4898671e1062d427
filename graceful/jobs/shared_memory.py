"""The memory that a worker and its horse share: the request for a shutdown one way, the result of the job the other.

Shared memory rather than a pipe or a signal, because it works from the horse's start to its end: the horse reads what
the worker wrote before the fork, and the worker reads what the horse wrote before it was killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import tempfile
from enum import IntEnum

from graceful.core.deadline import Deadline
from graceful.core.limits import Limits
from graceful.core.text import TEXT_LIMIT

_TIMES = struct.Struct("=ddd")
_REQUESTED = _TIMES.size
_INTERRUPT = _REQUESTED + 1
_VERDICT = _REQUESTED + 2
_STAGE = _REQUESTED + 3
_POLICY = _REQUESTED + 4
_EXCEEDS = _REQUESTED + 5
_WORKER = struct.Struct("=q")
_WORKER_AT = 64
_EXCEEDED = struct.Struct("=QQ")
_EXCEEDED_AT = 72
_FUNCTION = struct.Struct("=256p")
_FUNCTION_AT = 128
_SIZE = mmap.PAGESIZE


class Verdict(IntEnum):
    """The result of the job, written by the horse."""

    NONE = 0
    FINISHED = 1
    FAILED = 2
    INTERRUPTED = 3
    UNSTARTED = 4
    """It could not be started, because Redis was unreachable."""
    TAKEN = 5
    """It was not started, because this worker no longer held it."""
    UNSETTLED = 6
    """``perform_job`` returned, and RQ recorded no result: the worker class runs jobs in its own way."""
    YIELDED = 7
    """It has run for its ``max_runtime``, and lets other jobs run before it goes on."""


class Stage(IntEnum):
    """What the horse is doing."""

    STARTING = 0
    """Not yet in RQ's code: nothing of the job was done."""
    RUNNING = 1
    """In the job's own code: the only stage that is interrupted."""
    STORING = 2
    """In callbacks, or storing the result."""
    READY = 3
    """Its signals are set up, and RQ's code has begun."""


class SharedMemory:
    """One page of shared memory and one file for stacks, both without a name in the file system.

    Args:
        memory: descriptor of the shared page in a spawned horse; None makes a new one.
        stacks: descriptor of the file for stacks; None makes a new one.
    """

    def __init__(self, memory: int | None = None, stacks: int | None = None) -> None:
        self.memory = unnamed_file(_SIZE) if memory is None else memory
        self.stacks = unnamed_file(0) if stacks is None else stacks
        self._page = mmap.mmap(self.memory, _SIZE)

    def reset(self) -> None:
        """Prepare for the next job; the shutdown request stays."""
        self._page[_INTERRUPT] = 0
        self._page[_VERDICT] = Verdict.NONE
        self._page[_STAGE] = Stage.STARTING
        self._page[_POLICY] = 0
        self._page[_EXCEEDS] = 0
        self.function = ""
        self.write_stack("")

    def announce(self, limits: Limits) -> None:
        """Tell the job that a shutdown was requested, and its limits."""
        _TIMES.pack_into(self._page, 0, limits.soft.at, limits.hard.at, limits.end.at)
        self._page[_REQUESTED] = 1

    @property
    def announced(self) -> bool:
        return self._page[_REQUESTED] == 1

    @property
    def limits(self) -> Limits | None:
        """The limits of the shutdown, or None if none was requested."""
        if not self.announced:
            return None
        soft, hard, end = _TIMES.unpack_from(self._page, 0)
        return Limits(Deadline(soft), Deadline(hard), Deadline(end))

    @property
    def interrupt(self) -> bool:
        """Whether the job is to be interrupted now."""
        return self._page[_INTERRUPT] == 1

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._page[_INTERRUPT] = int(value)

    @property
    def exceeded(self) -> tuple[int, int] | None:
        """How much memory the job was found to have, and may have, in bytes; None unless it has too much."""
        if not self._page[_EXCEEDS]:
            return None
        used, limit = _EXCEEDED.unpack_from(self._page, _EXCEEDED_AT)
        return used, limit

    @exceeded.setter
    def exceeded(self, used_and_limit: tuple[int, int]) -> None:
        _EXCEEDED.pack_into(self._page, _EXCEEDED_AT, *used_and_limit)
        self._page[_EXCEEDS] = 1

    @property
    def raises(self) -> bool:
        """Whether something is to be raised in the job now."""
        return bool(self._page[_INTERRUPT] or self._page[_EXCEEDS])

    @property
    def verdict(self) -> Verdict:
        return Verdict(self._page[_VERDICT])

    @verdict.setter
    def verdict(self, value: Verdict) -> None:
        self._page[_VERDICT] = value

    @property
    def stage(self) -> Stage:
        return Stage(self._page[_STAGE])

    @stage.setter
    def stage(self, value: Stage) -> None:
        self._page[_STAGE] = value

    @property
    def policy(self) -> str | None:
        """The job's own policy: ``"requeue"``, ``"fail"``, or None."""
        return (None, "requeue", "fail")[self._page[_POLICY]]

    @policy.setter
    def policy(self, value: str | None) -> None:
        self._page[_POLICY] = (None, "requeue", "fail").index(value)

    @property
    def function(self) -> str:
        """Dotted name of the job's function; empty until the horse has unpickled the job, which a worker never does."""
        name: bytes = _FUNCTION.unpack_from(self._page, _FUNCTION_AT)[0]
        return name.decode("utf-8", "replace")

    @function.setter
    def function(self, name: str) -> None:
        _FUNCTION.pack_into(self._page, _FUNCTION_AT, name.encode("utf-8", "replace"))

    @property
    def worker_pid(self) -> int:
        """The worker's pid."""
        pid: int = _WORKER.unpack_from(self._page, _WORKER_AT)[0]
        return pid

    @worker_pid.setter
    def worker_pid(self, pid: int) -> None:
        _WORKER.pack_into(self._page, _WORKER_AT, pid)

    def write_stack(self, text: str) -> None:
        """Store the job's stack; replaces the previous one.

        Without room for it the stack is lost: whoever kills or interrupts a job goes on.
        """
        with contextlib.suppress(OSError):
            os.ftruncate(self.stacks, 0)
            os.pwrite(self.stacks, text.encode("utf-8", "replace"), 0)
            os.lseek(self.stacks, 0, os.SEEK_END)

    def read_stack(self) -> str:
        """The stack of the job when it was interrupted, or what faulthandler wrote; empty where it cannot be read."""
        with contextlib.suppress(OSError):  # A job without a horse may have closed the descriptor.
            return os.pread(self.stacks, 4 * TEXT_LIMIT, 0).decode("utf-8", "replace").strip("\n")
        return ""

    def close(self) -> None:
        self._page.close()
        for descriptor in (self.memory, self.stacks):
            with contextlib.suppress(OSError):  # An exit hook may have closed all descriptors.
                os.close(descriptor)


def unnamed_file(size: int = 0) -> int:
    """Descriptor of a file without a name: in memory on Linux, where the disk may be full or read-only."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("graceful")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
