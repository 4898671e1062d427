"""Django's Tasks, wherever they are: ``django.tasks`` (Django 6) or the package ``django-tasks`` (Django 5.2).

The two have the same names, apart from one exception.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.core.exceptions import ImproperlyConfigured


def _library() -> str:
    for name in ("django.tasks", "django_tasks"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            return name
    raise ImproperlyConfigured(
        "graceful.tasks needs Django 6 or the package django-tasks: pip install 'django-rq-graceful[tasks]'"
    )


LIBRARY = _library()
_base: Any = import_module(f"{LIBRARY}.base")
_exceptions: Any = import_module(f"{LIBRARY}.exceptions")
_signals: Any = import_module(f"{LIBRARY}.signals")

BaseTaskBackend: Any = import_module(f"{LIBRARY}.backends.base").BaseTaskBackend
Task, TaskContext, TaskError = _base.Task, _base.TaskContext, _base.TaskError
TaskResult, TaskResultStatus = _base.TaskResult, _base.TaskResultStatus
InvalidTask: Any = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
TaskResultDoesNotExist: Any = _exceptions.TaskResultDoesNotExist
task_enqueued, task_started, task_finished = _signals.task_enqueued, _signals.task_started, _signals.task_finished
normalize_json: Any = _base.normalize_json


def backend(alias: str) -> Any:
    """The backend of that name in ``TASKS``."""
    return import_module(LIBRARY).task_backends[alias]
