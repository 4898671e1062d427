"""``manage.py stopworkers``: living workers are asked to stop, as by SIGTERM, from any machine."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from graceful.management.arguments import seconds
from graceful.management.telling_command import TellingCommand
from graceful.worker.cluster.worker_commands import Command as Told
from graceful.worker.cluster.worker_commands import Target

CONFIRM_SECONDS = 5.0
"""For so long a worker is told again that did not listen."""
MARGIN_SECONDS = 5.0
UNKNOWN_PERIOD = 60.0
"""Grace period of a worker of which none is known."""
NOT_HEARD = f"nobody listened within {CONFIRM_SECONDS:g} s; it is dead or stuck, or its Redis connection is"
NOT_ENDED = "has not ended within {:g} s"


class Command(TellingCommand):
    help = (
        "Asks living workers to stop: RQ's shutdown command, which is the same as SIGTERM. Exit code: 0 done, 1 nobody "
        "was found, 75 some did not hear it or, with --wait, did not end in time, 69 Redis is unreachable."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--wait",
            type=seconds,
            nargs="?",
            const=0.0,
            metavar="SECONDS",
            help="wait until they have ended, at most so long (default: the longest grace period of them, and 5 s)",
        )

    def handle(self, **options: Any) -> None:
        """Tell them, and wait if that is wanted.

        Raises:
            CommandError: with the exit code.
        """
        targets = self.select(options)
        if options["wait"] is None:
            self.tell(targets, Told.STOP, _heard, CONFIRM_SECONDS, "have heard it")
            self.conclude(targets, _heard, NOT_HEARD)
            return
        wait = options["wait"] or MARGIN_SECONDS + max(
            target.worker.report.grace.period or UNKNOWN_PERIOD for target in targets
        )
        self.tell(targets, Told.STOP, _ended, wait, "have ended")
        self.conclude(targets, _ended, NOT_ENDED.format(wait))


def _heard(target: Target) -> bool:
    return target.told or target.stopping or target.gone


def _ended(target: Target) -> bool:
    return target.gone
