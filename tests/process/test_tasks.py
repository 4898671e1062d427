"""Django's Tasks under real workers that are stopped in the middle of one."""

from __future__ import annotations

import os
from typing import Any

import pytest
import redis
from rq import Queue

from graceful.exceptions import StoppedByShutdown, TooManyInterruptions
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.tasks import TASKS, functions
from tests.support.waiting import wait_until

SETTINGS = {
    "GRACEFUL_TIMEOUT": 3.0,
    "GRACEFUL_HOOKS_TIMEOUT": 1.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 1.0,
    "TASKS": TASKS,
}


@pytest.fixture
def tasks(settings: Any, connection: redis.Redis) -> Any:
    settings.TASKS = TASKS
    return functions()


def stopped_in_a_task(
    connection: redis.Redis, start_worker: StartWorker, tasks: Any, *options: str, **settings: Any
) -> WorkerProcess:
    """A worker that was stopped once the task's own code ran; it has ended."""
    connection.delete(tasks.BEGUN)
    worker = start_worker(settings=SETTINGS | settings, options=options, wait=False)
    wait_until(lambda: connection.llen(tasks.BEGUN), 20, lambda: worker.output)
    worker.signal()
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    return worker


def heard(connection: redis.Redis, tasks: Any) -> list[str]:
    lines: Any = connection.lrange(tasks.HEARD, 0, -1)
    return [line.decode() for line in lines]


def test_interrupted_and_continued(
    tasks: Any, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """READY after an interruption, with its attempt; the next run is the second, goes on, and ends the task."""
    result = tasks.slow.enqueue(100)
    first = stopped_in_a_task(connection, start_worker, tasks)
    result.refresh()
    assert (result.status, result.worker_ids, result.errors) == ("READY", [first.name], [])
    assert result.finished_at is None
    assert heard(connection, tasks) == ["started RUNNING 1"], "it has not finished"
    second = start_worker(settings=SETTINGS, options=["--burst"], wait=False)
    assert second.wait(20) == 0, second.output
    result.refresh()
    assert (result.status, result.worker_ids) == ("SUCCESSFUL", [first.name, second.name])
    attempt, done = result.return_value
    assert attempt == 2
    assert 0 < done < 100
    assert heard(connection, tasks) == ["started RUNNING 1", "started RUNNING 2", "finished SUCCESSFUL 2"]


@pytest.mark.parametrize(
    ("name", "worker_class"),
    [("once_above", "rq.Worker"), ("once_below", "rq.Worker"), ("once_above", "rq.SimpleWorker")],
)
def test_that_must_not_be_started_twice(
    name: str, worker_class: str, tasks: Any, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """``@on_interrupt("fail")`` above or below ``@task`` fails it, with the shutdown as its error."""
    result = getattr(tasks, name).enqueue(60)
    worker = stopped_in_a_task(connection, start_worker, tasks, "--worker-class", worker_class)
    result.refresh()
    assert (result.status, result.worker_ids) == ("FAILED", [worker.name])
    assert result.errors[0].exception_class is StoppedByShutdown
    assert heard(connection, tasks) == ["started RUNNING 1", "finished FAILED 1"]


def test_interrupted_too_often(tasks: Any, connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Each attempt has its worker, and the end its own error, once."""
    result = tasks.sleeps.enqueue(60)
    workers = [stopped_in_a_task(connection, start_worker, tasks, GRACEFUL_MAX_INTERRUPTIONS=1) for _ in range(2)]
    result.refresh()
    assert (result.status, result.worker_ids) == ("FAILED", [worker.name for worker in workers])
    (error,) = result.errors
    assert error.exception_class is TooManyInterruptions
    assert heard(connection, tasks) == ["started RUNNING 1", "started RUNNING 2", "finished FAILED 2"]


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker", "rq.worker.SpawnWorker"])
def test_tasks_of_django_tasks_rq(
    worker_class: str, settings: Any, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """They are interrupted and run again, beside jobs that are no tasks, without a job class in the settings."""
    from tests.support import tasks_rq  # With TASKS in place: it has a task.

    settings.TASKS = tasks_rq.TASKS
    result = tasks_rq.slow.enqueue(60)
    worker_settings = SETTINGS | {"TASKS": tasks_rq.TASKS}
    options = ["--worker-class", worker_class]
    first = start_worker(settings=worker_settings, options=options, wait=False)
    wait_until(lambda: connection.get(tasks_rq.RUNS), 20, lambda: first.output)
    first.signal()
    assert first.wait(10) == os.EX_TEMPFAIL, first.output
    result.refresh()
    assert result.status == "READY"
    ordinary = queue.enqueue(jobs.quick)
    second = start_worker(settings=worker_settings, options=[*options, "--burst"], wait=False)
    assert second.wait(20) == 0, second.output
    result.refresh()
    assert (result.status, result.return_value) == ("SUCCESSFUL", 2)
    assert ordinary.get_status(refresh=True) == "finished"
