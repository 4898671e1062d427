"""``--autoreload``: code changes under a worker, and another one goes on with the new code."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from rq import Queue

from graceful.core.phases import Outcome
from graceful.reports.journal import Journal
from tests.conftest import StartWorker
from tests.support.processes import WorkerProcess, pids_in_session
from tests.support.waiting import wait_until

CODE = "def answer():\n    return {}\n"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module of jobs beside ``manage.py``, as it were."""
    path = tmp_path / "reloaded_jobs.py"
    path.write_text(CODE.format(1))
    return path


@pytest.fixture
def worker(start_worker: StartWorker, module: Path) -> WorkerProcess:
    environment = {"PYTHONPATH": os.pathsep.join([str(module.parent), os.environ.get("PYTHONPATH", "")])}
    settings = {"INSTALLED_APPS": [*_installed(), "reloaded_app"]}
    app = module.parent / "reloaded_app"
    app.mkdir()
    (app / "__init__.py").write_text("")
    module.rename(app / "jobs.py")
    return start_worker(options=["--autoreload"], environment=environment, settings=settings)


def _installed() -> list[str]:
    from django.conf import settings

    return list(settings.INSTALLED_APPS)


def answered(queue: Queue) -> object:
    job = queue.enqueue("reloaded_app.jobs.answer")
    wait_until(lambda: job.get_status(refresh=True) in ("finished", "failed"), 20)
    return job.return_value(refresh=True)


def test_new_code_is_run(queue: Queue, connection: redis.Redis, worker: WorkerProcess, module: Path) -> None:
    """After a change a job runs the new code; the worker before has ended gracefully, with a report."""
    code = module.parent / "reloaded_app" / "jobs.py"
    assert answered(queue) == 1
    code.write_text(CODE.format(22))
    worker.wait_output("jobs.py changed, restarting the worker")
    wait_until(lambda: worker.output.count("started with PID") == 2, 20, lambda: worker.output)
    assert answered(queue) == 22
    (before,) = [each for each in Journal(connection).entries() if each.ended_at]
    assert (before.signal, before.outcome) == ("SIGTERM", Outcome.CLEAN)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    assert worker.output.count("shutdown requested") == 2


def test_code_that_cannot_be_imported(queue: Queue, worker: WorkerProcess, module: Path) -> None:
    """An error in the new code does not end it: the worker is started again when that is mended."""
    app = module.parent / "reloaded_app" / "__init__.py"
    app.write_text("this is no Python\n")
    worker.wait_output("it is started again when code changes")
    app.write_text("# mended\n")
    wait_until(lambda: worker.output.count("started with PID") == 2, 20, lambda: worker.output)
    assert answered(queue) == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.output
    assert pids_in_session(worker.pid) == []


def test_its_death_is_noticed(connection: redis.Redis, worker: WorkerProcess) -> None:
    """If the process that looks for changes is killed, the worker ends gracefully, too."""
    worker.signal(signal.SIGKILL)
    worker.wait()
    wait_until(lambda: pids_in_session(worker.pid) == [], 10, lambda: worker.output)
    (report,) = Journal(connection).entries()
    assert (report.signal, report.outcome) == ("SIGTERM", Outcome.CLEAN)


def test_a_worker_that_ends_by_itself_ends_it(start_worker: StartWorker) -> None:
    """A burst is over when its jobs are; wrong settings are told of, and wait for a change."""
    burst = start_worker(options=["--autoreload", "--burst"], wait=False)
    assert burst.wait() == 0, burst.output
    wrong = start_worker(options=["--autoreload"], settings={"GRACEFUL_TIMEOUT": -1}, wait=False)
    wrong.wait_output("exit code 78; it is started again when code changes")
    wrong.signal(signal.SIGTERM)
    assert wrong.wait() == 78, wrong.output
