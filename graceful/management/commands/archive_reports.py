"""``manage.py archive_reports``: closes the reports of dead workers, stores those that wait, and removes old ones."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis import Redis

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.core.text import one_line
from graceful.management.commands.shutdown_report import positive_number
from graceful.reports.archive import remove_old
from graceful.reports.sources import Homecoming, bring_all_home
from graceful.worker.cluster.heartbeat import JUDGE_SECONDS, suspects
from graceful.worker.cluster.reaping import reap


class Command(BaseCommand):
    help = (
        "Closes the reports of workers that were killed and requeues their jobs, stores the shutdown reports that "
        "wait in Redis or in this machine's spool, and removes those older than GRACEFUL_REPORTS_KEEP. Workers do all "
        "that by themselves, and the admin all but the last; this is for a cron job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--seconds",
            type=positive_number,
            default=60,
            metavar="N",
            help="spend at most so many seconds on it; 35 or more where workers on other machines may have died "
            "(default: %(default)s)",
        )

    def handle(self, **options: Any) -> None:
        """Do what can be done.

        Raises:
            CommandError: a place where reports wait could not be reached, so that cron tells somebody.
        """
        deadline = Deadline.after(options["seconds"])
        silent = 0

        def close_reports(connection: Redis) -> int:
            nonlocal silent
            closed = reap(connection, settings(), "archive_reports")
            silent += suspects(connection)
            return closed

        home = bring_all_home(deadline.left(), close_reports)
        if silent and deadline.left() > JUDGE_SECONDS + 1:
            # Whether they are dead is known at a second look.
            time.sleep(JUDGE_SECONDS + 1)
            again = bring_all_home(deadline.left(), close_reports)
            home = Homecoming(home.brought + again.brought, again.failures, home.closed + again.closed)
        for failure in home.failures:
            self.stderr.write(f"Not reached: {one_line(failure)}")
        removed = remove_old(settings().reports_keep)
        dead = f", reports of dead workers closed: {home.closed}" if home.closed else ""
        self.stdout.write(f"Reports archived: {home.brought}{dead}, old reports removed: {removed}")
        if home.failures:
            raise CommandError("Not every place where reports wait could be reached")
