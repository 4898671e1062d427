"""The backend of Django's Tasks whose queues are django-rq's."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import django_rq
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import connection as database
from django.db import transaction
from django.utils import timezone
from django_rq.queues import get_commit_mode, get_queue
from rq import Callback
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from graceful.reports.sources import queue_of_each_server
from graceful.tasks.library import (
    BaseTaskBackend,
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from graceful.tasks.results import META_KEY, is_task, result_of
from graceful.tasks.task import RQTask, failed, succeeded

SECONDS = ("job_timeout", "result_ttl", "failure_ttl")
"""What ``OPTIONS`` may have: seconds, as arguments of RQ's ``Queue.enqueue`` of these names."""


class RQBackend(BaseTaskBackend):  # type: ignore[misc]
    """Enqueues tasks as RQ jobs: ``TASKS = {"default": {"BACKEND": "graceful.tasks.RQBackend"}}``.

    ``QUEUES`` are names of ``RQ_QUEUES`` (``["default"]`` if it is not given, all of them if it is empty). ``OPTIONS``
    may have ``job_timeout``, ``result_ttl`` and ``failure_ttl``, in seconds; RQ's defaults hold otherwise.
    """

    task_class = RQTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True
    queues: set[str]

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        if not self.queues:
            self.queues = set(_rq_queues())

    def validate_task(self, task: Any) -> None:
        """As Django's, and what RQ cannot do.

        Raises:
            InvalidTask: the task cannot be run by this backend.
        """
        super().validate_task(task)
        if task.priority < 0:
            raise InvalidTask(
                f"priority must not be negative, got: {task.priority}; RQ knows the front of a queue (above 0) and its "
                "back (0): give what may wait a queue of its own, and name that last when a worker starts"
            )
        if not isinstance(task, RQTask):
            raise InvalidTask(
                f"{task.module_path} was decorated for a backend that does not run on RQ: name a backend of "
                f'graceful.tasks.RQBackend in its decorator, for instance @task(backend="{self.alias}")'
            )

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Enqueue a job that runs the task.

        As with django-rq's own ``enqueue``, within a transaction of the database that is only done when that commits
        (``RQ["COMMIT_MODE"]``).

        Args:
            task: the task. Above priority 0 it goes to the front of its queue. With ``run_after`` it needs a
                worker that was started ``--with-scheduler``.
            args, kwargs: what JSON can represent.

        Returns:
            its ``TaskResult``.

        Raises:
            InvalidTask: this backend cannot run the task.
            TypeError: JSON cannot represent an argument.
            redis.exceptions.RedisError: Redis is unreachable.
        """
        self.validate_task(task)
        result = TaskResult(
            task=task,
            id=uuid.uuid4().hex,
            status=TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        run_after = _aware(task.run_after)
        queue = get_queue(task.queue_name)
        job = queue.create_job(
            task.module_path,
            args=tuple(result.args),
            kwargs=result.kwargs,
            job_id=result.id,
            timeout=self.options.get("job_timeout"),
            result_ttl=self.options.get("result_ttl"),
            failure_ttl=self.options.get("failure_ttl"),
            status=JobStatus.SCHEDULED if run_after else JobStatus.QUEUED,
            meta={META_KEY: {"backend": self.alias, "priority": task.priority}},
            on_success=Callback(succeeded),
            on_failure=Callback(failed),
        )
        job.enqueue_at_front = task.priority > 0

        def enqueue() -> None:
            if run_after is None:
                queue.enqueue_job(job, at_front=bool(job.enqueue_at_front))
            else:
                queue.schedule_job(job, run_after)
            object.__setattr__(result, "enqueued_at", job.enqueued_at)
            task_enqueued.send(type(self), task_result=result)

        if get_commit_mode() == "on_db_commit" and database.in_atomic_block:
            transaction.on_commit(enqueue)
        else:
            enqueue()
        return result

    def get_result(self, result_id: str) -> Any:
        """The ``TaskResult`` of a task that was enqueued.

        Raises:
            TaskResultDoesNotExist: there is none, or RQ has removed it: after ``result_ttl`` (``failure_ttl``) seconds.
            redis.exceptions.RedisError: Redis is unreachable.
        """
        for name in queue_of_each_server():
            try:
                job = Job.fetch(result_id, connection=django_rq.get_connection(name))
            except NoSuchJobError:
                continue
            if is_task(job):
                return result_of(job)
        raise TaskResultDoesNotExist(result_id)

    def check(self, **kwargs: Any) -> Iterable[CheckMessage]:
        """Django's system check: ``graceful.E036`` for each thing that is wrong."""
        yield from super().check(**kwargs)
        if not apps.is_installed("django_rq"):
            yield self._error("BACKEND", "needs the app django_rq", "Add 'django_rq' to INSTALLED_APPS.")
        known = _rq_queues()
        for name in sorted(self.queues):
            if name not in known:
                yield self._error("QUEUES", f"is no queue of RQ_QUEUES: {name!r}", f"Add {name!r} to RQ_QUEUES.")
        for name, value in self.options.items():
            if name not in SECONDS:
                yield self._error("OPTIONS", f"is unknown: {name!r}", f"Known are {', '.join(SECONDS)}.")
            elif not _is_seconds(value) or (value == 0 and name == "job_timeout"):
                yield self._error("OPTIONS", f"{name} must be a number of seconds, got: {value!r}", "-1 is for ever.")

    def _error(self, key: str, text: str, hint: str) -> CheckMessage:
        return Error(f'TASKS["{self.alias}"]["{key}"] {text}', hint=hint, id="graceful.E036")


def _is_seconds(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1


def _rq_queues() -> Mapping[str, Mapping[str, Any]]:
    return getattr(settings, "RQ_QUEUES", {})


def _aware(moment: Any) -> Any:
    """RQ takes a naive time as UTC's; Django, as the project's."""
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
