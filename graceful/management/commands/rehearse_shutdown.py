"""``manage.py rehearse_shutdown``: the configured exit hooks after a made-up drain, in staging or in CI."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from graceful import conf
from graceful.exceptions import InvalidSettings
from graceful.reports.rehearsal import Drain, outage, rehearse
from graceful.reports.text import report_text

SIGNALS = ("SIGTERM", "SIGINT")


def seconds(text: str) -> float:
    """An argument that must be a number of seconds, zero included."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"a number of seconds was expected, got: {text!r}")
    return value


class Command(BaseCommand):
    help = (
        "Rehearses a shutdown: decides about a made-up job as a worker would, runs the configured exit hooks for real, "
        "and prints the report. No job is taken and nothing is stored, but the hooks do what they do."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--job-seconds",
            type=seconds,
            metavar="S",
            help="a job is in flight that would run so many seconds more (default: the worker is idle)",
        )
        parser.add_argument(
            "--cleanup-seconds",
            type=seconds,
            default=0.0,
            metavar="S",
            help="it needs so many seconds to end once it is interrupted (default: 0)",
        )
        parser.add_argument(
            "--stubborn", action="store_true", help="it swallows the interruption, and has to be killed"
        )
        parser.add_argument("--signal", choices=SIGNALS, default="SIGTERM", help="(default: %(default)s)")
        parser.add_argument("--timeout", type=float, metavar="S", help="overrides GRACEFUL_TIMEOUT")
        parser.add_argument("--database-down", action="store_true", help="no connection to a database can be opened")
        parser.add_argument("--redis-down", action="store_true", help="no connection to Redis can be opened")
        parser.add_argument(
            "--fail-if-unclean",
            action="store_true",
            help="exit with the code that the worker would have had: 75 if the job is interrupted, 70 if a hook fails",
        )

    def handle(self, **options: Any) -> None:
        try:
            settings = conf.settings()
            if options["timeout"] is not None:
                settings = settings.with_timeout(options["timeout"])
        except InvalidSettings as error:
            raise CommandError(str(error), returncode=os.EX_CONFIG) from error
        drain = Drain(options["job_seconds"], options["cleanup_seconds"], options["stubborn"])
        with outage(database=options["database_down"], redis=options["redis_down"]):
            report = rehearse(settings, drain, options["signal"])
        self.stdout.write(report_text(report))
        if options["fail_if_unclean"] and report.exit_code:
            sys.exit(report.exit_code)
