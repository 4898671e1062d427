"""``manage.py worker_probe``: asks a worker on this machine whether it is alive or ready, or what it is at."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from graceful.probe import add_arguments, ask


class Command(BaseCommand):
    help = (
        "Asks the worker whose --probe-socket is PATH: exit code 0 for yes, 1 for no or for no answer. For probes that "
        "run often: python -m graceful.probe takes the same arguments, and loads no Django."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, **options: Any) -> None:
        """Ask, and print the answer.

        Raises:
            CommandError: the answer is no, or there is none.
        """
        yes, text = ask(options["question"], options["socket"])
        if not yes:
            raise CommandError(text)
        self.stdout.write(text)
