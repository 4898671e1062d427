"""``manage.py archive_reports``: brings waiting reports into the database and removes old ones, for a cron job."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from graceful.conf import settings
from graceful.core.text import one_line
from graceful.management.commands.shutdown_report import positive_number
from graceful.reports.archive import remove_old
from graceful.reports.sources import bring_all_home


class Command(BaseCommand):
    help = (
        "Stores the shutdown reports that wait in Redis or in this machine's spool, and removes those older than "
        "GRACEFUL_REPORTS_KEEP. Workers do both by themselves, and the admin the first; this is for a cron job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--seconds",
            type=positive_number,
            default=60,
            metavar="N",
            help="spend at most so many seconds on waiting reports (default: %(default)s)",
        )

    def handle(self, **options: Any) -> None:
        """Do what can be done.

        Raises:
            CommandError: a place where reports wait could not be reached, so that cron tells somebody.
        """
        home = bring_all_home(options["seconds"])
        for failure in home.failures:
            self.stderr.write(f"Not reached: {one_line(failure)}")
        removed = remove_old(settings().reports_keep)
        self.stdout.write(f"Reports archived: {home.brought}, old reports removed: {removed}")
        if home.failures:
            raise CommandError("Not every place where reports wait could be reached")
