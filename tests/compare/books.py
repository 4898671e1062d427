"""The books: what a ledger of starts, ends and hooks says of each job. Pure; the same for every peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Line(NamedTuple):
    """One line of the ledger: ``start``, ``end`` or ``hook``; the job; the number of the worker; its pid; seconds."""

    what: str
    job: str
    worker: str
    pid: int
    at: float


def read(text: str) -> list[Line]:
    """The lines of a ledger. A last line that was cut off by a kill is left out."""
    found = []
    for each in text.splitlines():
        parts = each.split()
        if len(parts) == 5:
            what, job, worker, pid, at = parts
            found.append(Line(what, job, worker, int(pid), float(at)))
    return found


@dataclass
class Books:
    """What became of the jobs of one round.

    Args:
        done: ended once.
        doubled: ended more than once.
        failed: did not end, and the system calls them failed.
        held: did not end, and the system still counts them as running: nobody does.
        lost: did not end, and the system does not know of them.
        waiting: did not end, and are in a queue.
        again: of each job that was cut off: seconds from the stop to its next start; None if it was not started again.
        hooks: how many exit hooks of the stopped worker ran.
    """

    done: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    again: dict[str, float | None] = field(default_factory=dict)
    hooks: int = 0


def balance(jobs: Iterable[str], lines: Iterable[Line], states: Mapping[str, str], stopped_at: float) -> Books:
    """Account for every job.

    Args:
        jobs: all of the round.
        lines: the ledger.
        states: what the system says of those that did not end: ``queued``, ``held``, ``failed``, ``gone``.
        stopped_at: when the first worker was stopped or killed, by the ledger's clock.
    """
    books, ledger = Books(), list(lines)
    books.hooks = sum(line.what == "hook" and line.worker == "1" for line in ledger)
    for job in jobs:
        own = [line for line in ledger if line.job == job]
        ends = sum(line.what == "end" for line in own)
        starts = [line.at for line in own if line.what == "start"]
        before = [at for at in starts if at < stopped_at]
        ended_before = sum(line.what == "end" and line.worker == "1" for line in own)
        if before and ended_before < len(before):
            books.again[job] = next((at - stopped_at for at in starts if at >= stopped_at), None)
        if ends > 1:
            books.doubled.append(job)
        elif ends:
            books.done.append(job)
        else:
            place = {"failed": books.failed, "held": books.held, "queued": books.waiting}
            place.get(states.get(job, "gone"), books.lost).append(job)
    return books
