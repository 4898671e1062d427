"""Fixtures for the tests of a project; pytest finds them through the package's entry point.

What a fixture needs is imported in it: pytest loads this module before Django has settings, and for every project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graceful.core.records import ShutdownReport
    from graceful.testing import Worker
    from graceful.worker_process import WorkerProcess


@pytest.fixture
def graceful_worker() -> Worker:
    """A worker for one job of the project's own; see :mod:`graceful.testing`."""
    from graceful.testing import Worker

    return Worker()


@pytest.fixture
def graceful_exit_hooks() -> Callable[[], ShutdownReport]:
    """Runs ``GRACEFUL_EXIT_HOOKS`` as an idle worker does at its end, and returns the report; nothing is stored."""
    from graceful.conf import settings
    from graceful.reports.rehearsal import Drain, rehearse

    return lambda: rehearse(settings(), Drain(None, 0.0, False), "SIGTERM")


@pytest.fixture
def graceful_process(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts real workers of the project, and waits until they take jobs; they are killed after the test.

    Called with names of queues (default: ``default``), and ``options``, ``environment``, ``wait=False`` not to wait;
    returns a :class:`graceful.worker_process.WorkerProcess`.
    """
    from graceful.worker_process import WorkerProcess

    workers: list[WorkerProcess] = []

    def start(
        *queues: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None, wait: bool = True
    ) -> WorkerProcess:
        output = tmp_path / f"graceful-worker-{len(workers)}.log"
        worker = WorkerProcess(queues or ("default",), options, environment or {}, output)
        workers.append(worker)
        if wait:
            worker.wait_started()
        return worker

    try:
        yield start
    finally:
        for worker in workers:
            worker.kill()
