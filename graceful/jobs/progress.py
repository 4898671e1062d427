"""A job's progress, read from outside without unpickling anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from graceful.exceptions import CursorMismatch
from graceful.resume.cursors import FIELD, STEP, read


class JobInRedis(Protocol):
    """What is needed of an ``rq.job.Job``."""

    connection: Any

    @property
    def key(self) -> Any:
        """Its key in Redis."""


class Progress(NamedTuple):
    """Progress of one ``resumable`` loop of a job, as last saved.

    Args:
        name: the loop's name.
        done: finished items.
        total: how many there are in all, None if unknown.
        finished: whether the loop has ended.
    """

    name: str
    done: int
    total: int | None
    finished: bool

    @property
    def share(self) -> float | None:
        """The finished share, between 0 and 1; None if the total is unknown."""
        if self.finished:
            return 1.0
        return None if not self.total else min(1.0, self.done / self.total)


def progress(job: JobInRedis) -> tuple[Progress, ...]:
    """The loops of a job, in the order in which they began; empty once the job has succeeded.

    It is saved every few seconds (``save_every`` of ``resumable``).
    """
    try:
        return progress_in(read(job.connection.hget(job.key, FIELD)))
    except (CursorMismatch, KeyError, TypeError, AttributeError):
        return ()  # Of another version, or not ours: no reason for a page to fail.


def last_progress(job: JobInRedis) -> Progress | None:
    """The progress of the loop that a job is in or was in last; None if it has none."""
    loops = progress(job)
    return loops[-1] if loops else None


def progress_in(saved: Mapping[str, Any]) -> tuple[Progress, ...]:
    """The progress in what :func:`graceful.resume.cursors.read` has read."""
    return tuple(
        Progress(name, each["done"], each["total"], bool(each["finished"]))
        for name, each in saved["loops"].items()
        if each["kind"] != STEP and _is_count(each["done"]) and (each["total"] is None or _is_count(each["total"]))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
