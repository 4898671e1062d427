"""``manage.py shutdown_report``: how workers came to their end, from the newest on."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from redis.exceptions import RedisError

from graceful.core import report_json
from graceful.core.text import one_line
from graceful.models import ID_LENGTH, ShutdownReport
from graceful.reports.rows import record_of
from graceful.reports.sources import bring_all_home, journals
from graceful.reports.text import report_text
from graceful.worker.cluster.heartbeat import silent

HOME_SECONDS = 1.0
"""Spent at most on reports that still wait in Redis or in the spool."""
LIMIT = 10
RULE = "-" * 72


def positive_number(text: str) -> int:
    """An argument that must be a whole number above zero."""
    if not (text.isdecimal() and 0 < len(text) < 7 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 999999 was expected, got: {text!r}")
    return int(text)


def report_id(text: str) -> str:
    """An argument that may be the id of a report."""
    if not 1 <= len(text) <= ID_LENGTH:
        raise argparse.ArgumentTypeError(f"an id has 1 to {ID_LENGTH} characters, got: {len(text)}")
    return text


class Command(BaseCommand):
    help = "Shows shutdown reports: how a worker's end went, what became of its job, and how its exit hooks did."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--last", action="store_true", help="the newest report alone")
        which.add_argument(
            "--worker",
            metavar="NAME",
            help="the reports of the worker of that name, or else of those whose names begin so",
        )
        which.add_argument("--id", type=report_id, metavar="ID", help="the report of that id alone")
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="text for people, the newest report at the bottom; or json for programs, the newest first: "
            "a list, or one object with --last and --id (default: %(default)s)",
        )
        parser.add_argument(
            "--limit",
            type=positive_number,
            default=LIMIT,
            metavar="N",
            help="at most so many reports (default: %(default)s)",
        )

    def handle(self, **options: Any) -> None:
        bring_all_home(HOME_SECONDS)
        alone = options["last"] or options["id"] is not None
        found = ShutdownReport.objects.order_by("-happened_at", "-id").prefetch_related("hooks", "jobs")
        if options["id"] is not None:
            found = found.filter(pk=options["id"])
        if options["worker"] is not None:
            found = found.filter(worker__startswith=options["worker"])
        try:
            if options["worker"] is not None and (exact := found.filter(worker=options["worker"])).exists():
                found = exact
            reports = [record_of(row) for row in found[: 1 if alone else options["limit"]]]
        except DatabaseError as error:
            why = one_line(str(error).strip())
            raise CommandError(
                f"The shutdown reports cannot be read: {why}\nTheir tables are made by: manage.py migrate graceful"
            ) from error
        self._tell_of_the_dead()
        if not reports:
            raise CommandError(_none_found(options))
        if options["format"] == "json":
            dicts = [report_json.plain(report) for report in reports]
            self.stdout.write(json.dumps(dicts[0] if alone else dicts, indent=2))
        else:
            self.stdout.write(f"\n\n{RULE}\n\n".join(report_text(report) for report in reversed(reports)))

    def _tell_of_the_dead(self) -> None:
        """The newest report is not the last word where a worker was killed and no other has found it yet."""
        try:
            everywhere = journals(HOME_SECONDS)
        except Exception:  # Wrong settings of queues raise anything, and are no business of the archive's.
            return
        for journal in everywhere:
            try:
                dead = silent(journal.connection)
            except RedisError:
                continue  # Whoever depends on it says so.
            finally:
                journal.connection.close()
            for registration in dead:
                if ShutdownReport.objects.filter(pk=registration.life).exists():
                    continue  # It had its last word, and only left something behind.
                name = one_line(registration.worker)
                self.stderr.write(
                    f"Worker {name} died without a word. Its report comes, and its job goes back, "
                    "as soon as another worker runs or starts."
                )


def _none_found(options: dict[str, Any]) -> str:
    if options["id"] is not None:
        return f"There is no shutdown report with the id {options['id']!a}."
    if options["worker"] is not None:
        return f"There is no shutdown report of a worker whose name begins with {options['worker']!a}."
    return "There is no shutdown report yet: one is written whenever a worker ends."
