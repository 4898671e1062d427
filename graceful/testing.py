"""For the tests of a project's own jobs: run code into a shutdown, and run it again afterwards.

The pytest fixture ``graceful_worker`` is a :func:`worker`; it is available wherever the package is installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from graceful.core.deadline import Deadline
from graceful.core.limits import Limits
from graceful.exceptions import JobInterrupted
from graceful.jobs import interruption
from graceful.jobs.progress import Progress, progress_in
from graceful.jobs.shared_memory import SharedMemory
from graceful.resume.cursors import MemoryStore, read

__all__ = ["Run", "Worker", "shutdown_after", "worker"]
TIME_LEFT = 20.0


@dataclass
class Run:
    """One run of the code under test; set when its ``with`` block has ended.

    Args:
        interrupted: the shutdown interrupted it, or it made room for other jobs.
        yielded: it made room for other jobs, after the ``max_runtime`` of a ``resumable`` loop.
        finished: it ran to its end.
    """

    interrupted: bool = False
    yielded: bool = False
    finished: bool = False


class Worker:
    """Runs code as a worker runs one job: the next run finds what an interrupted run has saved."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    @contextmanager
    def shutdown_after(
        self, items: int | None = None, *, seconds: float | None = None, time_left: float = TIME_LEFT
    ) -> Iterator[Run]:
        """The block is a run of the job during which a shutdown is requested.

        ``JobInterrupted`` ends the block and not the test. If the block runs to its end, the job has succeeded and
        its cursors are removed; after an error they are kept, as in a worker.

        Args:
            items: how many checks of the code find no shutdown: ``resumable`` checks once before each item, so it
                yields so many.
            seconds: the shutdown comes so many seconds after the block's start instead.
            time_left: seconds from which ``graceful.time_left()`` then counts down.

        Raises:
            ValueError: not exactly one of ``items`` and ``seconds`` was given, or it is negative.
        """
        given = [each for each in (items, seconds) if each is not None]
        if len(given) != 1 or given[0] < 0:
            raise ValueError(f"shutdown_after takes items= or seconds=, not negative; got: {items=}, {seconds=}")
        with self._run(_StagedMemory(items, seconds, time_left)) as run:
            yield run

    @contextmanager
    def run(self) -> Iterator[Run]:
        """The block is a run of the job without a shutdown."""
        with self._run(_StagedMemory(None, None, TIME_LEFT)) as run:
            yield run

    @property
    def progress(self) -> tuple[Progress, ...]:
        """What :func:`graceful.jobs.progress` would say of the job."""
        return progress_in(read(self._store.load()))

    @contextmanager
    def _run(self, memory: _StagedMemory) -> Iterator[Run]:
        run = Run()
        before = interruption.guard
        guard = interruption.install(memory, self._store)
        assert guard is not None
        try:
            guard.check_every = 0.0  # Check between any two items, to be interrupted after exactly that one.
            guard.begin()
            yield run
            run.finished = True
            guard.cursors.clear()
        except JobInterrupted:
            run.interrupted = True
            run.yielded = guard.yielded
        finally:
            guard.end(run.finished)
            interruption.guard = before
            memory.close()


def worker() -> AbstractContextManager[Worker]:
    """A :class:`Worker` for one job.

    ::

        with graceful.testing.worker() as worker:
            with worker.shutdown_after(items=3) as run:
                mail_everybody()
            assert run.interrupted
            with worker.run():
                mail_everybody()
        assert len(mail.outbox) == 5
    """
    return nullcontext(Worker())


def shutdown_after(
    items: int | None = None, *, seconds: float | None = None, time_left: float = TIME_LEFT
) -> AbstractContextManager[Run]:
    """:meth:`Worker.shutdown_after`, for a job that is not run again."""
    return Worker().shutdown_after(items, seconds=seconds, time_left=time_left)


class _StagedMemory(SharedMemory):
    """Announces the shutdown by itself, at the given check or time."""

    def __init__(self, items: int | None, seconds: float | None, time_left: float) -> None:
        super().__init__()
        self._items = items
        self._at = None if seconds is None else time.monotonic() + seconds
        self._time_left = time_left

    @property
    def announced(self) -> bool:
        if super().announced:
            return True
        if self._items is not None:
            self._items -= 1
        if (self._items is not None and self._items < 0) or (self._at is not None and time.monotonic() >= self._at):
            soft = Deadline.after(self._time_left)
            self.announce(Limits(soft, soft, soft))
            return True
        return False

    @property
    def limits(self) -> Limits | None:
        # Not one of the code's checks for a shutdown, and so not counted.
        if self._at is not None and time.monotonic() >= self._at:
            return super().limits if self.announced else None
        return super().limits if super().announced else None
