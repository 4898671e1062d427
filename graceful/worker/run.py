"""How RQ's work loop came to its end. The loop itself tells little: it logs an error, and breaks off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from rq.exceptions import StopRequested

from graceful.core.phases import Reason


class Run:
    """One run of the loop.

    Args:
        options: the arguments of ``work()``, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.executed = 0
        """How many jobs came to an end."""
        self.error: BaseException | None = None
        """What broke the loop off."""
        self._ended_well = False  # What the loop does not tell from an error of which it broke off.

    def note(self, error: BaseException) -> None:
        """The loop breaks off."""
        if not isinstance(error, StopRequested) and self.error is None:
            self.error = error

    @property
    def full(self) -> bool:
        """Whether as many jobs came to an end as ``max_jobs`` allows."""
        most = self._options.get("max_jobs")
        return most is not None and self.executed >= most

    def end_well(self) -> None:
        """The loop ends as it should."""
        self._ended_well = True

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the error that leaves the block."""
        try:
            yield
        except StopRequested:
            raise
        except BaseException as error:
            self.note(error)
            raise

    @contextmanager
    def step(self) -> Iterator[None]:
        """As :meth:`noting`; a ``StopRequested`` out of the block ends the loop well."""
        try:
            with self.noting():
                yield
        except StopRequested:
            self.end_well()
            raise

    def reason(self) -> Reason:
        """Why the worker ended, where nobody asked for it."""
        if self.error is not None:
            lost = isinstance(self.error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError))
            return Reason.REDIS_LOST if lost else Reason.ERROR
        if self.full:
            return Reason.MAX_JOBS
        if not self._ended_well:
            return Reason.ERROR
        if self._options.get("burst"):
            return Reason.BURST
        return Reason.IDLE if self._options.get("max_idle_time") is not None else Reason.ERROR
