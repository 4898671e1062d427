"""The memory that a worker and its horse share: how the job is told of a shutdown, and how it went.

Shared memory rather than a pipe or a signal, because it holds from the first instant of the horse's life to its last:
what the worker writes before the horse is born, the horse reads; what the horse wrote before it was killed, the
worker reads.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
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
_WORKER = struct.Struct("=q")
_WORKER_AT = 64
_FUNCTION = struct.Struct("=256p")
_FUNCTION_AT = 128
_SIZE = mmap.PAGESIZE


class Verdict(IntEnum):
    """What the horse says of its job."""

    NONE = 0
    FINISHED = 1
    FAILED = 2
    INTERRUPTED = 3
    UNSTARTED = 4
    """It could not be started, because Redis was away; nothing of it was done."""
    TAKEN = 5
    """It was not started, because it was not this worker's any more."""
    UNSETTLED = 6
    """``perform_job`` returned, and RQ was told of no end: the worker's class has a way of its own to run jobs."""


class Stage(IntEnum):
    """Where the horse is in the life of its job."""

    STARTING = 0
    RUNNING = 1
    """In the job's own code: the only stage that is interrupted."""
    STORING = 2
    """In callbacks, or storing the result."""


class SharedMemory:
    """One page of shared memory and one file for stacks, both without a name in the file system.

    Args:
        memory: descriptor of the shared page in a spawned horse; None makes a new one.
        stacks: descriptor of the file for stacks; None makes a new one.
    """

    def __init__(self, memory: int | None = None, stacks: int | None = None) -> None:
        self.memory = _unnamed_file(_SIZE) if memory is None else memory
        self.stacks = _unnamed_file(0) if stacks is None else stacks
        self._page = mmap.mmap(self.memory, _SIZE)

    def reset(self) -> None:
        """Make it ready for the next job; what was said of the shutdown stays."""
        self._page[_INTERRUPT] = 0
        self._page[_VERDICT] = Verdict.NONE
        self._page[_STAGE] = Stage.STARTING
        self._page[_POLICY] = 0
        self.function = ""
        os.ftruncate(self.stacks, 0)
        os.lseek(self.stacks, 0, os.SEEK_SET)

    def announce(self, limits: Limits) -> None:
        """Tell the job that a shutdown was asked for, and until when it may run."""
        _TIMES.pack_into(self._page, 0, limits.soft.at, limits.hard.at, limits.end.at)
        self._page[_REQUESTED] = 1

    def withdraw(self) -> None:
        """Unsay a shutdown."""
        self._page[_REQUESTED] = 0

    @property
    def announced(self) -> bool:
        return self._page[_REQUESTED] == 1

    @property
    def limits(self) -> Limits | None:
        """The limits of the shutdown, or None where none was asked for."""
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
        """What the job itself says of its interruption: ``"requeue"``, ``"fail"``, or None."""
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
        """Keep where the job stood; replaces what was kept before."""
        os.ftruncate(self.stacks, 0)
        os.pwrite(self.stacks, text.encode("utf-8", "replace"), 0)
        os.lseek(self.stacks, 0, os.SEEK_END)

    def read_stack(self) -> str:
        """Where the job stood when it was interrupted, or what faulthandler wrote for it."""
        return os.pread(self.stacks, 4 * TEXT_LIMIT, 0).decode("utf-8", "replace").strip("\n")

    def close(self) -> None:
        self._page.close()
        for descriptor in (self.memory, self.stacks):
            with contextlib.suppress(OSError):  # An exit hook may have closed every descriptor there is.
                os.close(descriptor)


def _unnamed_file(size: int) -> int:
    with tempfile.TemporaryFile(buffering=0) as file:
        descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
