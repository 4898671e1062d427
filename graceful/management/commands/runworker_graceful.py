"""``manage.py runworker_graceful``: django-rq's ``rqworker`` with a graceful end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from django_rq.management.commands.rqworker import Command as RQWorkerCommand
from django_rq.workers import get_worker
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.logutils import setup_loghandlers

from graceful import conf
from graceful.exceptions import InvalidSettings, UnsupportedWorkerClass
from graceful.management.arguments import positive_number
from graceful.management.worker_options import (
    CLASS_OPTIONS,
    HELPS,
    IMPORT_ERRORS,
    NUMBERS,
    PROBE_HELPS,
    check_class,
    check_platform,
    check_queues,
    check_system,
    job_class,
    worker_class,
    write_pid,
)
from graceful.worker.compat.database import close_database_connections
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.exit import leave
from graceful.worker.shutdown.stall_guard import StallGuard
from graceful.worker.worker import speaks_for_unit

START_SECONDS = 1.0
"""How long the start may take to notice a stop by itself."""
LEVELS = {0: "WARNING", 1: "INFO"}


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
        for option, unit in (("--max-memory", "MB"), ("--max-age", "SECONDS")):
            dest = option[2:].replace("-", "_")
            parser.add_argument(option, type=positive_number, metavar=unit, help=HELPS[dest])
        for name, (metavar, text) in PROBE_HELPS.items():
            parser.add_argument(name, metavar=metavar, help=text)
        parser.add_argument("--workers", type=positive_number, metavar="N", help=HELPS["workers"])
        parser.add_argument(
            "--autoreload", action="store_true", help="for development: restart the worker gracefully when code changes"
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

            def run() -> int:
                if options["autoreload"] and (code := self._autoreload(inbox, stall_guard.dismiss)) is not None:
                    return code
                run_them = self._run_pool if options["workers"] else self._run
                return run_them(queues, options, inbox, stall_guard.dismiss)

            code = self._coded(run)
            # Still inside: a signal that comes now must not change the exit code.
            leave(code, self._seconds_left)

    def _coded(self, run: Callable[[], int]) -> int:
        """The exit code of ``run``, or of what hinders it, which is told."""
        try:
            return run()
        except (InvalidSettings, UnsupportedWorkerClass) as error:
            self.stderr.write(self.style.ERROR(str(error)))
            return os.EX_CONFIG
        except (RedisConnectionError, RedisTimeoutError) as error:
            self.stderr.write(self.style.ERROR(f"Redis cannot be reached: {error}"))
            return os.EX_UNAVAILABLE

    def _autoreload(self, inbox: os_signals.Inbox, started: Callable[[], None]) -> int | None:
        """The exit code of the last worker; None in the process that is the worker."""
        from graceful.management import autoreload  # For development: other workers are not to pay for its import.

        if autoreload.is_child():
            return None
        started()
        return autoreload.run(inbox, self.stderr.write)

    def _run(
        self,
        queues: tuple[str, ...],
        options: dict[str, Any],
        inbox: os_signals.Inbox,
        started: Callable[[], None],
    ) -> int:
        graceful_class = self._checked(queues, options)
        return self._work(queues, options, inbox, started, graceful_class, _probes(options))

    def _run_pool(
        self,
        queues: tuple[str, ...],
        options: dict[str, Any],
        inbox: os_signals.Inbox,
        started: Callable[[], None],
    ) -> int:
        # A worker that is alone is not to pay for their import.
        from graceful.worker.pool.parent import Pool
        from graceful.worker.pool.signs import PoolSigns
        from graceful.worker.probes.systemd import notifier

        graceful_class = self._checked(queues, options)
        settings = conf.settings()
        if options["timeout"] is not None:
            settings = settings.with_timeout(options["timeout"])
        probes = _probes(options)
        if options["pid"]:
            write_pid(os.path.expanduser(options["pid"]))
        setup_loghandlers(LEVELS.get(options["verbosity"], "DEBUG"), name="graceful")
        close_database_connections()
        signs = PoolSigns(options["name"] or "", probes, notifier("Worker pool") if speaks_for_unit() else None)
        started()  # Its thread is over: a process that forks has none.

        def start(number: int, quiet: bool) -> None:
            name = f"{options['name']}.{number}" if options["name"] else None
            with os_signals.capture() as own_inbox:
                os_signals.unblock()
                if quiet:
                    own_inbox.record_command(os_signals.QUIET_COMMAND)
                own = {**options, "name": name, "pid": None}
                guard = StallGuard(own_inbox, _Start(own_inbox), START_SECONDS)
                code = self._coded(lambda: self._work(queues, own, own_inbox, guard.dismiss, graceful_class, None))
                leave(code, self._seconds_left)

        ends_by_itself = bool(options["burst"] or options["max_idle_time"])
        queue = queues[0] if queues else "default"
        pool = Pool(inbox, settings, queue, start, signs, ends_by_itself=ends_by_itself)
        return pool.run(options["workers"])

    def _checked(self, queues: tuple[str, ...], options: dict[str, Any]) -> Any:
        """The graceful worker class, once all that can be wrong has been looked at.

        Raises:
            InvalidSettings, UnsupportedWorkerClass: something is.
        """
        if not options["unchecked"]:
            # Of ours it tells all at once; conf.settings() knows nothing of hooks that cannot be imported.
            check_system()
        settings = conf.settings()
        seconds = options["timeout"]
        if seconds is not None:
            settings = settings.with_timeout(seconds)
            for problem in settings.warnings("--timeout"):
                self.stderr.write(self.style.WARNING(f"{problem.message}\n\tHINT: {problem.hint}"))
        if not options["unchecked"]:
            check_platform(settings.timeout, "GRACEFUL_TIMEOUT" if seconds is None else "--timeout")
        # django-rq's hints know RQ's Worker alone, which a SimpleWorker of RQ 3 is not.
        graceful_class = worker_class(options["worker_class"])
        check_queues(queues)
        for option in CLASS_OPTIONS:
            check_class(option, options[option])
        return graceful_class

    def _work(
        self,
        queues: tuple[str, ...],
        options: dict[str, Any],
        inbox: os_signals.Inbox,
        started: Callable[[], None],
        graceful_class: Any,
        probes: Any,
    ) -> int:
        seconds = options["timeout"]
        level = LEVELS.get(options["verbosity"], "DEBUG")
        setup_loghandlers(level)
        try:
            worker: Any = get_worker(
                *queues,
                worker_class=graceful_class,
                queue_class=options["queue_class"],
                job_class=job_class(options["job_class"]),
                name=options["name"],
                worker_ttl=options["worker_ttl"],
                serializer=options["serializer"],
            )
        except IMPORT_ERRORS as error:
            raise UnsupportedWorkerClass(f"The worker cannot be made: {error}") from error
        for queue in worker.queues:
            queue.connection = worker.connection  # django-rq opens one for each, though they are on one server.
        worker.grace_seconds = seconds
        worker.max_memory, worker.max_age = options["max_memory"], options["max_age"]
        if options["pid"]:
            write_pid(os.path.expanduser(options["pid"]))
        close_database_connections()
        live_line = _live_line(worker, level)
        if probes is not None:
            probes.answer(worker, inbox)
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
        if probes is not None:
            probes.remove_file()
        self._seconds_left = worker.seconds_left
        return code


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


def _probes(options: dict[str, Any]) -> Any:
    """Listen for probes, if that is wanted; None if it is not.

    Raises:
        InvalidSettings: an address is wrong, or cannot be listened on.
    """
    if not (conf.settings().probe_port or options["probe_port"] or options["probe_socket"]):
        return None
    # Imported here, since a worker without probes is not to pay for them at its start: 2 ms.
    from graceful.worker.probes.listeners import listeners

    return listeners(options)
