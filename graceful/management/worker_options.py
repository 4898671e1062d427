"""The options of ``runworker_graceful``: what each is for, and whether its value will do."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import SystemCheckError
from django_rq.queues import get_queues
from django_rq.workers import get_worker_class
from rq.utils import import_attribute

from graceful import checks as graceful_checks
from graceful.exceptions import InvalidSettings, UnsupportedWorkerClass
from graceful.worker.classes import make_graceful

HELPS = {
    "worker_class": "dotted path of an RQ worker class; made graceful (default: RQ['WORKER_CLASS'], or rq.Worker)",
    "pid": "file to write the worker's process id into",
    "burst": "do the jobs that are there, then end",
    "with_scheduler": "run RQ's scheduler in a child process as well",
    "name": "the worker's name (default: a random one)",
    "queue_class": "dotted path of the queue class",
    "job_class": "dotted path of the job class",
    "worker_ttl": "seconds after which a worker without heartbeat counts as gone (default: 420)",
    "max_jobs": "end after so many jobs",
    "max_idle_time": "end after so many seconds without a job",
    "max_memory": "end between two jobs above so many MB, worker and work horse together "
    "(default: GRACEFUL_MAX_MEMORY)",
    "max_age": "end between two jobs so many seconds after the start (default: GRACEFUL_MAX_AGE)",
    "workers": "run so many workers, forked from one process",
    "serializer": "dotted path of the serializer of jobs and results",
    "args": "names of the queues, the most urgent one first (default: default)",
}
PROBE_HELPS = {
    "--probe-port": ("PORT", "answer HTTP probes there: /live, /ready, /status (default: GRACEFUL_PROBE_PORT)"),
    "--probe-host": ("HOST", "the address for that (default: 127.0.0.1)"),
    "--probe-socket": ("PATH", "answer probes on this Unix socket, for manage.py worker_probe"),
}
CLASS_OPTIONS = ("queue_class", "job_class", "serializer")
TASKS_RQ = ("django_tasks_rq.RQBackend", "django_tasks_rq.backend.RQBackend")
"""Another backend of Django's Tasks on RQ, whose jobs need a job class."""
NUMBERS = ("worker_ttl", "max_jobs", "max_idle_time")
"""Options that RQ takes as they are, and that mean nothing at zero or below."""

IMPORT_ERRORS = (ImportError, AttributeError, ValueError)
"""What ``rq.utils.import_attribute`` raises."""


def job_class(given: str | None) -> str | None:
    """Dotted path of the job class, None for RQ's own: the given one, that of the settings, or what ``TASKS`` needs."""
    if given or getattr(django_settings, "RQ", {}).get("JOB_CLASS"):
        return given
    # Before Django 6 anything may be called so.
    tasks = getattr(django_settings, "TASKS", None)
    backends = [each for each in tasks.values() if isinstance(each, dict)] if isinstance(tasks, dict) else []
    if any(backend.get("BACKEND") in TASKS_RQ for backend in backends):
        return "graceful.worker.compat.tasks_rq.TaskOrJob"
    return None


def write_pid(path: str) -> None:
    """Write this process's id into a file.

    Raises:
        InvalidSettings: it cannot be written.
    """
    try:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise InvalidSettings(f"--pid must be a file that can be written, got: {path} ({error.strerror})") from error


def worker_class(path: str | None) -> Any:
    """The graceful form of the class at a dotted path, or of ``RQ["WORKER_CLASS"]``.

    Raises:
        UnsupportedWorkerClass: there is no such class, or it cannot be made graceful.
    """
    try:
        return make_graceful(get_worker_class(path))  # type: ignore[no-untyped-call]
    except (*IMPORT_ERRORS, UnsupportedWorkerClass) as error:
        origin = "--worker-class" if path else 'RQ["WORKER_CLASS"]'
        meant = did_you_mean(path or getattr(django_settings, "RQ", {}).get("WORKER_CLASS"))
        message = f"{origin} must be the dotted path of an RQ worker class: {error}{meant}"
        raise UnsupportedWorkerClass(message) from error


def check_class(option: str, path: Any) -> None:
    """See whether the class of an option is there.

    Raises:
        UnsupportedWorkerClass: it is not.
    """
    if not isinstance(path, str):
        return
    try:
        import_attribute(path)
    except IMPORT_ERRORS as error:
        name = f"--{option.replace('_', '-')}"
        message = f"{name} must be a dotted path, got: {path} ({error}){did_you_mean(path)}"
        raise UnsupportedWorkerClass(message) from error


def did_you_mean(path: object) -> str:
    """A question that names the dotted path next to one that cannot be imported; empty where none is near it."""
    parts = path.split(".") if isinstance(path, str) else []
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        there = {*dir(module), *(each.name for each in pkgutil.iter_modules(getattr(module, "__path__", ())))}
        close = difflib.get_close_matches(parts[end], there - {parts[end]}, n=1)
        return f"; did you mean {'.'.join([*parts[:end], close[0], *parts[end + 1 :]])}?" if close else ""
    return ""


def check_system() -> None:
    """Run all system checks.

    Raises:
        InvalidSettings: one of ours found an error; the message has all of them.
        SystemCheckError: another one did.
    """
    found = checks.run_checks()
    errors = [message for message in found if message.is_serious() and not message.is_silenced()]
    ours = [message for message in errors if (message.id or "").startswith("graceful.")]
    if ours:
        raise InvalidSettings("\n".join(str(message) for message in ours))
    if errors:
        raise SystemCheckError("\n".join(str(message) for message in errors))
    _write(found)


def check_platform(timeout: float, key: str) -> None:
    """Warn of a grace period that is too long for the platform.

    Args:
        timeout: the worker's grace period in seconds.
        key: the setting or option that it is from.
    """
    _write(graceful_checks.check_platform(timeout=timeout, key=key))


def _write(messages: Iterable[checks.CheckMessage]) -> None:
    for message in messages:
        if not message.is_silenced():
            sys.stderr.write(f"{message}\n")


def check_queues(names: tuple[str, ...]) -> None:
    """See whether one worker can take these queues; without names it takes the one that is called default.

    Raises:
        InvalidSettings: RQ_QUEUES has not all of them, or they are on different servers or of different classes.
    """
    known = getattr(django_settings, "RQ_QUEUES", None) or {}
    unknown = [name for name in names or ("default",) if name not in known]
    if unknown:
        there = ", ".join(map(repr, known)) or "it has none"
        raise InvalidSettings(f"Queues must be in RQ_QUEUES ({there}), got: {', '.join(map(repr, unknown))}")
    try:
        get_queues(*names)  # type: ignore[no-untyped-call]
    except (ImproperlyConfigured, ValueError) as error:
        raise InvalidSettings(f"RQ_QUEUES: {error}") from error
