"""``manage.py mark_release``: notes a release, as a line in the trends and a row on the page of deploys."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.management.arguments import release_label
from graceful.management.commands.shutdown_report import unreadable
from graceful.reports.noted_releases import note_release


class Command(BaseCommand):
    help = (
        "Notes a release now, for the trends and the page of deploys. Workers note their GRACEFUL_RELEASE themselves; "
        "this command is for a release whose workers start later, or that has none."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("label", type=release_label, help="as in GRACEFUL_RELEASE")

    def handle(self, **options: Any) -> None:
        """Note it; one that is noted already is left as it is."""
        label = options["label"]
        try:
            new = note_release(label, utc_now())
        except DatabaseError as error:
            raise CommandError(unreadable(error)) from error
        self.stdout.write(f"Release {one_line(label)} is {'noted' if new else 'known already'}.")
