"""``manage.py quietworkers``: living workers take no new job, or take jobs again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from graceful.management.telling_command import TellingCommand
from graceful.worker.cluster.worker_commands import Command as Told

CONFIRM_SECONDS = 5.0
NOT_QUIET = f"has not said so within {CONFIRM_SECONDS:g} s; it is of an earlier version, or is stuck"


class Command(TellingCommand):
    help = (
        "Makes living workers quiet: they take no new job, finish the one in flight and stay alive; with --resume they "
        "take jobs again. Exit code: 0 done, 1 nobody was found, 75 some did not follow, 69 Redis is unreachable."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--resume", action="store_true", help="have them take jobs again")

    def handle(self, **options: Any) -> None:
        """Tell them, and see that each says so.

        Raises:
            CommandError: with the exit code.
        """
        command = Told.RESUME if options["resume"] else Told.QUIET
        targets = self.select(options)
        say = "take jobs" if options["resume"] else "take no job"
        self.tell(targets, command, lambda target: target.has_followed(command), CONFIRM_SECONDS, say)
        self.conclude(targets, lambda target: target.has_followed(command), NOT_QUIET)
