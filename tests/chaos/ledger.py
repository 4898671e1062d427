"""What jobs did, written where no fault of the suite reaches: Redis may lose its last second, a disk may be full.

A page of shared memory in a file of fixed size, under a lock: no write makes it longer, so that no limit of file
sizes holds for it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import started_at

SIZE = 1 << 18
_LENGTH = struct.Struct("=q")
VARIABLE = "CHAOS_LEDGER"


@dataclass(frozen=True)
class Line:
    """One line: what (``start``, ``end``, ``stop``, ``twice``) happened to which job, and in which process.

    A ``turn`` is an actor's: it did once more what it is there for.
    """

    what: str
    job: str
    pid: int
    started: str


class Ledger:
    """The ledger of one lane.

    Args:
        path: its file, made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(SIZE))

    @classmethod
    def of_process(cls) -> Ledger:
        """The one that this process was told of."""
        return cls(Path(os.environ[VARIABLE]))

    def clear(self) -> None:
        with self._page() as page:
            page[: _LENGTH.size] = _LENGTH.pack(0)

    def lines(self) -> list[Line]:
        with self._page() as page:
            return _lines(page)

    def note(self, what: str, job: str) -> None:
        """Write a line; a ``start`` of a job that runs elsewhere at this instant is noted as ``twice`` as well."""
        with self._page() as page:
            pid = os.getpid()
            started = started_at(pid) or ""
            if what == "start" and any(_alive(line) for line in _running(_lines(page), job) if line.pid != pid):
                _append(page, Line("twice", job, pid, started))
            _append(page, Line(what, job, pid, started))

    @contextmanager
    def _page(self) -> Iterator[mmap.mmap]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with mmap.mmap(descriptor, SIZE) as page:
                yield page
        finally:
            os.close(descriptor)


def turns(lines: list[Line], actor: str) -> int:
    """How often an actor has done what it is there for."""
    return sum(line.what == "turn" and line.job == actor for line in lines)


def starts(lines: list[Line]) -> Counter[str]:
    """How often each job was started."""
    return Counter(line.job for line in lines if line.what == "start")


def _running(lines: list[Line], job: str) -> list[Line]:
    """The starts of a job that have no end."""
    running: dict[int, Line] = {}
    for line in lines:
        if line.job == job and line.what == "start":
            running[line.pid] = line
        elif line.job == job and line.what in ("end", "stop"):
            running.pop(line.pid, None)
    return list(running.values())


def _alive(line: Line) -> bool:
    """Whether the process of a line is still there; its own judgement, and not that of what is tested."""
    try:
        return started_at(line.pid) == line.started
    except OSError:
        return True  # There is such a process, and it cannot be looked at.


def _lines(page: mmap.mmap) -> list[Line]:
    (length,) = _LENGTH.unpack_from(page, 0)
    text = page[_LENGTH.size : _LENGTH.size + length].decode()
    found = []
    for each in text.splitlines():
        what, job, pid, started = each.split("\t")
        found.append(Line(what, job, int(pid), started))
    return found


def _append(page: mmap.mmap, line: Line) -> None:
    (length,) = _LENGTH.unpack_from(page, 0)
    text = f"{line.what}\t{line.job}\t{line.pid}\t{line.started}\n".encode()
    at = _LENGTH.size + length
    page[at : at + len(text)] = text
    _LENGTH.pack_into(page, 0, length + len(text))
