"""``manage.py runcron_graceful``: django-rq's ``rqcron``, whose stops and restarts lose no tick and double none."""

from __future__ import annotations

import logging
import os
from typing import Any

from django_rq.management.commands.rqcron import Command as RQCronCommand
from redis.exceptions import RedisError
from rq.logutils import setup_loghandlers

from graceful import conf
from graceful.exceptions import InvalidSettings
from graceful.hooks.at_exit import run_at_exit
from graceful.management.worker_options import check_system
from graceful.worker.cron import GracefulCronScheduler, stop_asked
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.exit import leave
from graceful.worker.shutdown.stall_guard import StallGuard

STOP_SECONDS = 1.0
"""How long Redis may hold up a stop before its connection is cut: what is due and not enqueued stays due."""


class Command(RQCronCommand):
    help = (
        "Runs RQ's cron scheduler so that a stop or a restart loses no tick and doubles none. Takes every option of "
        "rqcron. Exit hooks run at its end."
    )
    # Run in handle(), which ends with EX_CONFIG where our own settings are wrong.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the scheduler. Ends the process: 0 after a stop, 78 for wrong settings or a wrong configuration."""
        code, seconds = os.EX_OK, 1.0
        with os_signals.capture() as inbox:
            try:
                check_system()
                seconds = conf.settings().timeout
                level = getattr(logging, options["logging_level"])
                setup_loghandlers(level, name="graceful")
                scheduler = GracefulCronScheduler(logging_level=level)
                self._load(scheduler, options["config_path"])
                run_at_exit()
                stop: Any = _Stop(inbox)
                guard = StallGuard(inbox, stop, STOP_SECONDS, job_process=stop)
                scheduler.run(inbox)
                guard.dismiss()
            except InvalidSettings as error:
                self.stderr.write(self.style.ERROR(str(error)))
                code = os.EX_CONFIG
            leave(code, seconds)

    def _load(self, scheduler: GracefulCronScheduler, path: str) -> None:
        """Load the file or module that registers the cron jobs.

        Raises:
            InvalidSettings: it cannot be loaded, or it registers none.
        """
        try:
            scheduler.load_config_from_file(path)
        except RedisError:
            raise
        except Exception as error:
            raise InvalidSettings(f"config_path must be a module or file that registers cron jobs: {error}") from error
        if not scheduler.get_jobs():
            raise InvalidSettings(f"config_path must register cron jobs with rq.cron.register(), got none from: {path}")


class _Stop:
    """Says to the stall guard whether a stop was asked for, and that every command is the scheduler's own.

    Args:
        inbox: what was asked of it.
    """

    has_main_thread = False

    def __init__(self, inbox: os_signals.Inbox) -> None:
        self._inbox = inbox

    @property
    def stopping(self) -> bool:
        return stop_asked(self._inbox)

    def attend(self) -> None:
        """The scheduler itself sees to it, once its connection was cut."""
