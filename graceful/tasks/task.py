"""A task as RQ calls it, in a worker of any class: stock RQ's too."""

from __future__ import annotations

from traceback import format_exception
from types import TracebackType
from typing import Any

from django.utils import timezone
from redis import Redis
from rq import get_current_job
from rq.job import Job

from graceful.tasks.library import (
    Task,
    TaskContext,
    TaskError,
    TaskResultStatus,
    backend,
    normalize_json,
    task_finished,
    task_started,
)
from graceful.tasks.results import OF_SHUTDOWNS, is_task, result_of, set_on


class RQTask(Task):  # type: ignore[misc]
    """What ``@task`` makes of a function whose backend is :class:`graceful.tasks.RQBackend`.

    RQ's job names it as its function. So it needs no job class, and ``@on_interrupt`` and ``resumable`` see the
    function itself.
    """

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task: for RQ alone.

        Raises:
            TypeError: this is not the call by which RQ runs the job; or JSON cannot represent the return value.
        """
        job = get_current_job()
        if job is None or job.func_name != self.module_path or not is_task(job):
            raise TypeError(f"a task is run by a worker: {self.module_path} has call() and enqueue()")
        result = result_of(job)
        # A run that has begun is RUNNING, also where RQ has not said so yet.
        set_on(result, status=TaskResultStatus.RUNNING)
        task_started.send_robust(_sender(result), task_result=result)
        if self.takes_context:
            args = (TaskContext(task_result=result), *args)
        return normalize_json(self.call(*args, **kwargs))


def succeeded(job: Job, connection: Redis, value: Any) -> None:
    """RQ's success callback of every task."""
    _finished(result_of(job), TaskResultStatus.SUCCESSFUL, _return_value=value)


def failed(
    job: Job,
    connection: Redis,
    exception_class: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """RQ's failure callback of every task: it has failed for good. A task that is requeued has not."""
    path = f"{exception_class.__module__}.{exception_class.__qualname__}"
    text = "".join(format_exception(exception_class, error, traceback))
    # Where a shutdown has failed it, its last run is among the interrupted ones already.
    result = result_of(job, running=path not in OF_SHUTDOWNS)
    result.errors.append(TaskError(exception_class_path=path, traceback=text))
    _finished(result, TaskResultStatus.FAILED)


def _finished(result: Any, status: Any, **values: Any) -> None:
    """Tell the receivers. RQ stores the job's end after its callbacks, so that is put in here."""
    set_on(result, status=status, finished_at=timezone.now(), **values)
    task_finished.send_robust(_sender(result), task_result=result)


def _sender(result: Any) -> type:
    return type(backend(result.backend))
