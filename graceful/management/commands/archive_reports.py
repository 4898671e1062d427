"""``manage.py archive_reports``: closes the reports of dead workers, stores those that wait, and removes old ones."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from redis import Redis

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.core.text import one_line
from graceful.management.arguments import positive_number
from graceful.management.commands.shutdown_report import unreadable
from graceful.models import ShutdownReport
from graceful.reports.archive import remove_old
from graceful.reports.rollup import fold_old, roll_up
from graceful.reports.sources import ArchiveRun, archive_everything
from graceful.worker.cluster.heartbeat import JUDGE_SECONDS, suspects
from graceful.worker.cluster.reaper import reap

LEAST_ROLL_UP_SECONDS = 1.0
"""Spent on adding up even if unreachable servers took all the time."""


class Command(BaseCommand):
    help = (
        "Closes the reports of workers that were killed and requeues their jobs, stores the shutdown reports that "
        "wait in Redis or in this machine's spool, and removes those older than GRACEFUL_REPORTS_KEEP. Workers do all "
        "of this themselves, and the admin all but the last; this command is for a cron job."
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
        """Archive what is reachable.

        Raises:
            CommandError: the archive, or a place where reports wait, is unreachable, so that cron sends mail.
        """
        deadline = Deadline.after(options["seconds"])
        suspected = 0

        def close_reports(connection: Redis) -> int:
            nonlocal suspected
            closed = reap(connection, settings(), "archive_reports")
            suspected += suspects(connection)
            return closed

        run = archive_everything(deadline.left(), close_reports)
        if suspected and deadline.left() > JUDGE_SECONDS + 1:
            # They are known to be dead if they are still overdue at a second check.
            time.sleep(JUDGE_SECONDS + 1)
            again = archive_everything(deadline.left(), close_reports)
            run = ArchiveRun(run.archived + again.archived, again.failures, run.closed + again.closed)
        for failure in run.failures:
            self.stderr.write(f"Unreachable: {one_line(failure)}")
        roll_up(max(LEAST_ROLL_UP_SECONDS, deadline.left()))
        removed = remove_old(settings().reports_keep)
        fold_old(settings().reports_keep)
        dead = f", reports of dead workers closed: {run.closed}" if run.closed else ""
        self.stdout.write(f"Reports archived: {run.archived}{dead}, old reports removed: {removed}")
        try:
            ShutdownReport.objects.exists()
        except DatabaseError as error:  # Dead workers' jobs have been requeued nevertheless.
            raise CommandError(unreadable(error)) from error
        if run.failures:
            raise CommandError("Some places where reports wait are unreachable")
