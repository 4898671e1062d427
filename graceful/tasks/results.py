"""What became of a task, read from RQ's job, its results, and the attempts at it that shutdowns have interrupted."""

from __future__ import annotations

import builtins
import re
from datetime import datetime
from typing import Any

from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry
from rq.results import Result

from graceful import exceptions
from graceful.core import attempts
from graceful.core.text import cut
from graceful.tasks.library import Task, TaskError, TaskResult, TaskResultStatus
from graceful.worker.queue.requeue import ATTEMPTS_FIELD

META_KEY = "graceful_task"
"""Key in ``job.meta``: the task's backend and priority."""
STATUSES = {
    JobStatus.STARTED: TaskResultStatus.RUNNING,
    JobStatus.FINISHED: TaskResultStatus.SUCCESSFUL,
    JobStatus.FAILED: TaskResultStatus.FAILED,
    JobStatus.STOPPED: TaskResultStatus.FAILED,
    JobStatus.CANCELED: TaskResultStatus.FAILED,
}
"""Any other waits for a run, also after an interruption: READY."""
OVER = {TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED}
OF_SHUTDOWNS = {
    f"graceful.exceptions.{error.__name__}"
    for error in (exceptions.StoppedByShutdown, exceptions.TooManyInterruptions, exceptions.PoisonJob)
}
"""Errors of jobs that fail for their interruptions: their last attempt is among the interrupted ones."""
ERROR_LINE = re.compile(r"([A-Za-z_][\w.]{0,200})(?:: |:?$)")
ERROR_LIMIT = 100_000


def is_task(job: Job) -> bool:
    """Whether a job was enqueued by :class:`graceful.tasks.RQBackend`."""
    return isinstance(job.meta, dict) and isinstance(job.meta.get(META_KEY), dict)


def result_of(job: Job, *, running: bool = True) -> Any:
    """The ``TaskResult`` of a job, as Redis has it now: three or four commands.

    Args:
        job: the job.
        running: whether a run of a started job counts that is not known to have ended.

    Raises:
        ImportError, AttributeError, ValueError, TypeError: its function is no task of this project any more.
    """
    meta = job.meta[META_KEY]
    backend = str(meta.get("backend"))
    task: Any = job.func
    if not isinstance(task, Task):
        raise TypeError(f"{job.func_name} is not a task")
    status = STATUSES.get(job.get_status(), TaskResultStatus.READY)
    run_after = None
    if job.is_scheduled:
        registry: Any = ScheduledJobRegistry(  # type: ignore[no-untyped-call]
            job.origin, job.connection, type(job)
        )
        run_after = registry.get_scheduled_time(job)
    result = TaskResult(
        task=task.using(priority=meta.get("priority"), queue_name=job.origin, run_after=run_after, backend=backend),
        id=job.id,
        status=status,
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        finished_at=job.ended_at if status in OVER else None,
        last_attempted_at=job.started_at,
        args=list(job.args),
        kwargs=job.kwargs,
        backend=backend,
        errors=[],
        worker_ids=[],
    )
    _add_runs(result, job, running)
    return result


def set_on(result: Any, **values: Any) -> None:
    """Set fields of a ``TaskResult``, which is frozen: Django's own backends do the same."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def error_of(text: str) -> Any:
    """The ``TaskError`` of a traceback, or of RQ's ``Class: message``."""
    return TaskError(exception_class_path=class_path_of(text), traceback=text)


def class_path_of(text: str) -> str:
    """Dotted path of the exception that a traceback ends with; ``builtins.Exception`` if it cannot be seen."""
    # The last frames are followed by the exception's own line; what comes after that is the rest of its message.
    after = re.split(r"^Traceback \(most recent call last\):$", text[-ERROR_LIMIT:], flags=re.MULTILINE)[-1]
    for line in after.split("\n"):
        if found := ERROR_LINE.match(line):
            path = found[1]
            if "." in path:
                return path
            for module in (builtins, exceptions):
                kind = getattr(module, path, None)
                if isinstance(kind, type) and issubclass(kind, BaseException):
                    return f"{module.__name__}.{path}"
            break
    return "builtins.Exception"


def _add_runs(result: Any, job: Job, running: bool) -> None:
    """Workers and errors of all runs, the oldest first: those that RQ has results of, and the interrupted ones."""
    found: Any = job.connection.hget(job.key, ATTEMPTS_FIELD)
    interrupted = attempts.load(found)
    runs: list[tuple[datetime, str]] = [(attempt.at, attempt.worker) for attempt in interrupted]
    for each in reversed(job.results()):
        error = error_of(each.exc_string or "") if each.type is Result.Type.FAILED else None
        if error is not None:
            result.errors.append(error)
        if error is None or not interrupted or error.exception_class_path not in OF_SHUTDOWNS:
            runs.append((each.created_at, each.worker_name))
        if each.type is Result.Type.SUCCESSFUL:
            set_on(result, _return_value=each.return_value)
    runs.sort(key=lambda run: run[0])
    result.worker_ids.extend(cut(worker, attempts.NAME_LIMIT) for _, worker in runs if worker)
    if running and result.status == TaskResultStatus.RUNNING and job.worker_name:
        result.worker_ids.append(job.worker_name)
