"""``manage.py runworker_graceful``: django-rq's ``rqworker`` with a graceful end."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import SystemCheckError
from django_rq.management.commands.rqworker import Command as RQWorkerCommand
from django_rq.queues import get_queues
from django_rq.workers import get_worker, get_worker_class
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.logutils import setup_loghandlers
from rq.utils import import_attribute

from graceful import conf
from graceful.exceptions import InvalidSettings, UnsupportedWorkerClass
from graceful.management.arguments import positive_number
from graceful.worker.classes import make_graceful
from graceful.worker.compat.database import close_database_connections
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.exit import leave
from graceful.worker.shutdown.stall_guard import StallGuard

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
    "serializer": "dotted path of the serializer of jobs and results",
    "args": "names of the queues, the most urgent one first (default: default)",
}
START_SECONDS = 1.0
"""How long the start may take to notice a stop by itself."""
LEVELS = {0: "WARNING", 1: "INFO"}

CLASS_OPTIONS = ("queue_class", "job_class", "serializer")
NUMBERS = ("worker_ttl", "max_jobs", "max_idle_time")
"""Options that RQ takes as they are, and that mean nothing at zero or below."""

IMPORT_ERRORS = (ImportError, AttributeError, ValueError)
"""What ``rq.utils.import_attribute`` raises."""


class Command(RQWorkerCommand):
    help = (
        "Runs an RQ worker that ends gracefully at SIGTERM: no job is lost, exit hooks run after the last job, "
        "and a report tells how it went. Takes every option of rqworker."
    )
    # Run in handle(), which ends with EX_CONFIG where our own settings are wrong.
    requires_system_checks: list[str] = []

    _seconds_left = 1.0

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)  # type: ignore[no-untyped-call]
        for action in parser._actions:
            action.help = HELPS.get(action.dest, action.help)
            if action.dest in NUMBERS:
                action.type = positive_number
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="the grace period, from the signal to the end of the process (default: GRACEFUL_TIMEOUT)",
        )
        # Django adds it only to a command whose checks it runs itself. Not under Django's own name for it, which
        # call_command() sets to true wherever its caller does not.
        parser.add_argument(
            "--skip-checks",
            dest="unchecked",
            action="store_true",
            help="skip the system checks; the values of GRACEFUL_* settings are checked all the same",
        )

    def handle(self, *queues: str, **options: Any) -> None:
        """Run the worker. Ends the process with the exit code of the shutdown."""
        with os_signals.capture() as inbox:
            stall_guard = StallGuard(inbox, _Start(inbox), START_SECONDS)
            try:
                code = self._run(queues, options, stall_guard.dismiss)
            except (InvalidSettings, UnsupportedWorkerClass) as error:
                self.stderr.write(self.style.ERROR(str(error)))
                code = os.EX_CONFIG
            except (RedisConnectionError, RedisTimeoutError) as error:
                self.stderr.write(self.style.ERROR(f"Redis cannot be reached: {error}"))
                code = os.EX_UNAVAILABLE
            # Still inside: a signal that comes now must not change the exit code.
            leave(code, self._seconds_left)

    def _run(self, queues: tuple[str, ...], options: dict[str, Any], started: Callable[[], None]) -> int:
        if not options["unchecked"]:
            _check()  # Of ours it tells all at once; conf.settings() knows nothing of hooks that cannot be imported.
        conf.settings()
        seconds = options["timeout"]
        if seconds is not None:
            for problem in conf.settings().with_timeout(seconds).warnings("--timeout"):
                self.stderr.write(self.style.WARNING(f"{problem.message}\n\tHINT: {problem.hint}"))
        # django-rq's hints know RQ's Worker alone, which a SimpleWorker of RQ 3 is not.
        graceful_class: Any = _worker_class(options["worker_class"])
        _check_queues(queues)
        for option in CLASS_OPTIONS:
            _check_class(option, options[option])
        level = LEVELS.get(options["verbosity"], "DEBUG")
        setup_loghandlers(level)
        try:
            worker: Any = get_worker(
                *queues,
                worker_class=graceful_class,
                queue_class=options["queue_class"],
                job_class=options["job_class"],
                name=options["name"],
                worker_ttl=options["worker_ttl"],
                serializer=options["serializer"],
            )
        except IMPORT_ERRORS as error:
            raise UnsupportedWorkerClass(f"The worker cannot be made: {error}") from error
        for queue in worker.queues:
            queue.connection = worker.connection  # django-rq opens one for each, though they are on one server.
        worker.grace_seconds = seconds
        if options["pid"]:
            _write_pid(os.path.expanduser(options["pid"]))
        close_database_connections()
        live_line = _live_line(worker, level)
        started()
        try:
            worker.work(
                burst=options["burst"],
                with_scheduler=options["with_scheduler"],
                logging_level=level,
                max_jobs=options["max_jobs"],
                max_idle_time=options["max_idle_time"],
            )
            code = os.EX_OK
        except SystemExit as ended:
            code = int(ended.code or 0)
        if live_line is not None:
            live_line.end(worker.report)
        self._seconds_left = worker.seconds_left
        return code


def _live_line(worker: Any, level: str) -> Any:
    """What shows a person on a terminal how the shutdown goes; None without a terminal."""
    if not (os.isatty(1) or os.isatty(2)):
        return None
    # Imported here, since a worker without a terminal is not to pay for it at its start: 3 ms.
    from graceful.reports.terminal import terminal_descriptor
    from graceful.worker.shutdown.live_line import LiveLine

    terminal = terminal_descriptor()
    if terminal is None:
        return None
    setup_loghandlers(level, name="graceful")  # As the worker does later: its records must not garble the line.
    return LiveLine(worker, terminal)


def _write_pid(path: str) -> None:
    """Write this process's id into a file.

    Raises:
        InvalidSettings: it cannot be written.
    """
    try:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise InvalidSettings(f"--pid must be a file that can be written, got: {path} ({error.strerror})") from error


class _Start:
    """A process that still starts, perhaps in a Redis command that nobody answers: it holds nothing, and may go.

    Args:
        inbox: what was asked of it.
    """

    stopping = False

    def __init__(self, inbox: os_signals.Inbox) -> None:
        self._inbox = inbox

    def attend(self) -> None:
        stops = {os_signals.SHUTDOWN_COMMAND, *(signum.name for signum in os_signals.STOP_SIGNALS)}
        if any(received.name in stops for received in self._inbox.received):
            leave(os.EX_OK)


def _worker_class(path: str | None) -> Any:
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


def _check_class(option: str, path: Any) -> None:
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


def _check() -> None:
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
    for message in found:
        if not message.is_silenced():
            sys.stderr.write(f"{message}\n")


def _check_queues(names: tuple[str, ...]) -> None:
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
