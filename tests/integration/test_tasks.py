"""Django's Tasks: what a caller of the backend sees, on a real server; the jobs are run by RQ's own SimpleWorker."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone
from rq import Queue, SimpleWorker
from rq.job import Job, JobStatus
from rq.results import Result

from graceful.core import attempts
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.tasks import library, results
from graceful.worker.queue.requeue import ATTEMPTS_FIELD
from tests.support.tasks import TASKS, functions

TRACEBACK = "Traceback (most recent call last):"
pytestmark = pytest.mark.usefixtures("settings_of_tasks")


@pytest.fixture
def settings_of_tasks(settings: Any, connection: redis.Redis) -> None:
    settings.TASKS = TASKS


@pytest.fixture
def tasks() -> Any:
    return functions()


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """The signals that were sent, with the status and the errors that the task had by then."""
    found: list[tuple[str, Any]] = []
    receivers = {}
    for name in ("task_enqueued", "task_started", "task_finished"):

        def hear(task_result: Any, name: str = name, **_: Any) -> None:
            found.append((name, task_result.status))

        receivers[name] = hear
        getattr(library, name).connect(hear)
    yield found
    for name, hear in receivers.items():
        getattr(library, name).disconnect(hear)


def work(*queues: Queue) -> None:
    SimpleWorker(queues, connection=queues[0].connection).work(burst=True, with_scheduler=False)


def test_the_way_of_a_task(tasks: Any, queue: Queue, heard: list[tuple[str, Any]]) -> None:
    """Enqueued, then run by a worker that knows nothing of tasks; its result has the value, the worker, the times."""
    result = tasks.add.enqueue(1, two=3)
    assert (result.status, result.is_finished, result.attempts) == ("READY", False, 0)
    assert result.enqueued_at is not None
    job = Job.fetch(result.id, connection=queue.connection)
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (50, 300, 400)
    assert job.func_name == "tests.support.task_functions.add"
    work(queue)
    with pytest.raises(ValueError):
        _ = result.return_value
    result.refresh()
    assert (result.status, result.return_value, result.errors) == ("SUCCESSFUL", 4, [])
    assert result.worker_ids == [job.latest_result().worker_name]  # type: ignore[union-attr]
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert (result.args, result.kwargs) == ([1], {"two": 3})
    assert heard == [("task_enqueued", "READY"), ("task_started", "RUNNING"), ("task_finished", "SUCCESSFUL")]
    assert tasks.add.get_result(result.id) == result


def test_values_are_those_of_json(tasks: Any, queue: Queue) -> None:
    """Arguments and return values come back as JSON has them; what JSON cannot represent is an error."""
    with pytest.raises(TypeError):
        tasks.add.enqueue(object())
    assert queue.count == 0
    made, wrong = tasks.pair.enqueue(), tasks.unrepresentable.enqueue()
    work(queue)
    made.refresh()
    wrong.refresh()
    assert made.return_value == [1, 2]
    assert wrong.status == "FAILED"
    assert wrong.errors[0].exception_class is TypeError


def test_async(tasks: Any, queue: Queue) -> None:
    """Coroutines are tasks, and each method has an async variant."""

    async def enqueue() -> Any:
        result = await tasks.add_later.aenqueue(2, 3)
        found = await tasks.add_later.aget_result(result.id)
        await result.arefresh()
        return found

    result = asyncio.run(enqueue())
    assert result.status == "READY"
    work(queue)
    result.refresh()
    assert result.return_value == 5


def test_context(tasks: Any, queue: Queue) -> None:
    """A task that takes its context sees the run that it is."""
    result = tasks.told.enqueue(8, 9)
    work(queue)
    result.refresh()
    assert result.return_value == [1, "RUNNING", result.id, [8, 9], [8, 9]]


def test_failure(tasks: Any, queue: Queue, heard: list[tuple[str, Any]]) -> None:
    """The error of a failed task has its class and its traceback."""
    result = tasks.breaks.enqueue()
    work(queue)
    result.refresh()
    assert result.status == "FAILED"
    with pytest.raises(ValueError):
        _ = result.return_value
    (error,) = result.errors
    assert error.exception_class is tasks.Broken
    assert "KeyError: 'first'" in error.traceback
    assert heard[-1] == ("task_finished", "FAILED")


def test_queues_and_priority(tasks: Any, queues: dict[str, Queue]) -> None:
    """A priority above 0 is the front of the queue; a queue or a priority that cannot be is refused."""
    first = tasks.urgent.using(priority=0).enqueue()
    second = tasks.urgent.enqueue()
    assert queues["high"].get_job_ids() == [second.id, first.id]
    assert tasks.urgent.get_result(second.id).task.priority == 7
    with pytest.raises(library.InvalidTask, match="low"):
        tasks.urgent.using(queue_name="low")
    with pytest.raises(library.InvalidTask, match="must not be negative, got: -1"):
        tasks.urgent.using(priority=-1)


def test_run_after(tasks: Any, queue: Queue) -> None:
    """A deferred task is in RQ's registry of scheduled jobs, and READY; a naive time is refused, as by Django."""
    at = timezone.now() + datetime.timedelta(hours=1)
    result = tasks.add.using(run_after=at, priority=1).enqueue(1)
    assert queue.count == 0
    job = Job.fetch(result.id, connection=queue.connection)
    assert (job.get_status(), job.enqueue_at_front) == (JobStatus.SCHEDULED, True)
    found = tasks.add.get_result(result.id)
    assert found.status == "READY"
    assert abs(found.task.run_after - at) < datetime.timedelta(seconds=1)
    with pytest.raises(library.InvalidTask):
        tasks.add.using(run_after=datetime.datetime(2030, 1, 1))


def test_no_such_result(tasks: Any, queue: Queue) -> None:
    """Neither an id that nobody has, nor a job that is no task, has a result; that of another task does not match."""
    backend = library.backend("default")
    with pytest.raises(library.TaskResultDoesNotExist):
        backend.get_result("nobody")
    job = queue.enqueue("tests.support.worker_jobs.quick")
    with pytest.raises(library.TaskResultDoesNotExist):
        backend.get_result(job.id)
    with pytest.raises(Exception, match="does not match"):
        tasks.pair.get_result(tasks.add.enqueue(1).id)


@pytest.mark.parametrize(
    ("status", "shown"),
    [("stopped", "FAILED"), ("canceled", "FAILED"), ("deferred", "READY"), ("started", "RUNNING")],
)
def test_each_status(tasks: Any, queue: Queue, status: str, shown: str) -> None:
    """What RQ calls otherwise has the nearest of Django's four statuses."""
    result = tasks.add.enqueue(1)
    queue.connection.hset(f"rq:job:{result.id}", mapping={"status": status, "worker_name": "w1"})
    result.refresh()
    assert result.status == shown
    assert result.worker_ids == (["w1"] if shown == "RUNNING" else [])


def test_runs_that_were_interrupted(tasks: Any, queue: Queue) -> None:
    """Each attempt counts, in order of time; a failure for the interruptions is no further one."""
    result = tasks.add.enqueue(1)
    job = Job.fetch(result.id, connection=queue.connection)
    at = timezone.now() - datetime.timedelta(minutes=1)
    kept = [
        attempts.dump(Attempt(AttemptEnd.KILLED, at + datetime.timedelta(seconds=n), f"w{n}", "host")) for n in (1, 2)
    ]
    queue.connection.hset(job.key, ATTEMPTS_FIELD, "\n".join(kept))
    result.refresh()
    assert (result.status, result.worker_ids, result.attempts) == ("READY", ["w1", "w2"], 2)
    Result.create_failure(job, 60, "TooManyInterruptions: interrupted by 2 shutdowns\n1. …", worker_name="reaper")
    job.set_status(JobStatus.FAILED)
    result.refresh()
    assert (result.status, result.worker_ids) == ("FAILED", ["w1", "w2"])
    assert result.errors[0].exception_class_path == "graceful.exceptions.TooManyInterruptions"


def test_a_transaction(tasks: Any, queue: Queue, transactional_db: None, settings: Any) -> None:
    """Within a transaction a task is enqueued when that commits, as by django-rq; or at once, where it is told so."""
    with transaction.atomic():
        result = tasks.add.enqueue(1)
        assert (queue.count, result.enqueued_at) == (0, None)
    assert queue.get_job_ids() == [result.id]
    assert result.enqueued_at is not None
    settings.RQ = {"COMMIT_MODE": "auto"}
    with transaction.atomic():
        tasks.add.enqueue(1)
        assert queue.count == 2


def test_a_task_is_not_a_function(tasks: Any, queue: Queue) -> None:
    """Calling it is an error that says what to do, also within another task."""
    with pytest.raises(TypeError, match=r"add has call\(\) and enqueue\(\)"):
        tasks.add(1)
    result = tasks.calls_another.enqueue()
    work(queue)
    result.refresh()
    assert "has call() and enqueue()" in result.errors[0].traceback
    assert tasks.add.call(1) == 3


def test_a_task_of_another_backend(settings: Any) -> None:
    """RQ cannot call it, and says so at once."""
    module = f"{library.LIBRARY}.backends.immediate.ImmediateBackend"
    settings.TASKS = {"default": {"BACKEND": module}, "rq": TASKS["default"]}
    # Django 6.0 has no defaults for these.
    plain = library.Task(func=work, priority=0, backend="default", queue_name="default", run_after=None)
    with pytest.raises(library.InvalidTask, match="was decorated for a backend that does not run on RQ"):
        plain.using(backend="rq")


def test_checks(settings: Any) -> None:
    """Each wrong setting is an error of the system check that names key, rule and value."""
    settings.TASKS = {
        "default": {
            "BACKEND": "graceful.tasks.RQBackend",
            "QUEUES": ["default", "nowhere"],
            "OPTIONS": {"result_ttl": "1h", "job_timeout": 0, "failure_ttl": -1, "colour": 1},
        }
    }
    backend = library.backend("default")
    found = [(each.id, each.msg) for each in backend.check()]
    assert found == [
        ("graceful.E036", 'TASKS["default"]["QUEUES"] is no queue of RQ_QUEUES: \'nowhere\''),
        ("graceful.E036", 'TASKS["default"]["OPTIONS"] result_ttl must be a number of seconds, got: \'1h\''),
        ("graceful.E036", 'TASKS["default"]["OPTIONS"] job_timeout must be a number of seconds, got: 0'),
        ("graceful.E036", 'TASKS["default"]["OPTIONS"] is unknown: \'colour\''),
    ]
    right = {"job_timeout": -1, "result_ttl": 0}
    settings.TASKS = {"default": {"BACKEND": "graceful.tasks.RQBackend", "QUEUES": [], "OPTIONS": right}}
    assert library.backend("default").queues == {"default", "high", "low"}
    assert list(library.backend("default").check()) == []


def test_an_explicit_error_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django 5.2 without django-tasks: what is missing, and how it is installed."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(library, "import_module", missing)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-rq-graceful\[tasks\]'"):
        library._library()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("TooManyInterruptions: x\nTraceback: y", "graceful.exceptions.TooManyInterruptions"),
        (f"{TRACEBACK}\n  File\nValueError", "builtins.ValueError"),
        (f"{TRACEBACK}\n  a\na.A: 1\n\nThe above\n\n{TRACEBACK}\n  b\na.B: c\nd.E: f", "a.B"),
        ("Work-horse terminated unexpectedly", "builtins.Exception"),
        ("Nobody: knows", "builtins.Exception"),
        ("", "builtins.Exception"),
    ],
)
def test_class_of_an_error(text: str, path: str) -> None:
    """RQ keeps text alone: the class is read from the exception's own line, and never from its message."""
    assert results.class_path_of(text) == path
