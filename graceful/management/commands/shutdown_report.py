"""``manage.py shutdown_report``: shows shutdown reports, the newest first."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils.translation import override
from redis.exceptions import RedisError

from graceful.core import report_json
from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.management.arguments import positive_number
from graceful.models import ID_LENGTH, ShutdownReport
from graceful.reports.advice import advice_for, advice_text
from graceful.reports.deploys.gate import verdict_of_release
from graceful.reports.deploys.projection import verdict_of
from graceful.reports.rollup import roll_up
from graceful.reports.rows import record_of
from graceful.reports.sources import archive_everything, journals
from graceful.reports.text import report_text
from graceful.worker.cluster.heartbeat import dead_workers

ROLL_UP_SECONDS = 1.0
ARCHIVE_SECONDS = 1.0
"""Longest time spent on archiving reports that still wait in Redis or in the spool."""
LIMIT = 10
RULE = "-" * 72


def report_id(text: str) -> str:
    """An argument that may be the id of a report."""
    if not 1 <= len(text) <= ID_LENGTH:
        raise argparse.ArgumentTypeError(f"an id has 1 to {ID_LENGTH} characters, got: {len(text)}")
    return text


class Command(BaseCommand):
    help = (
        "Shows shutdown reports: how each shutdown went, what became of the job in flight, and how the exit hooks went."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--last", action="store_true", help="the newest report alone")
        which.add_argument(
            "--worker",
            metavar="NAME",
            help="the reports of the worker of that name, or else of those whose names begin so",
        )
        which.add_argument("--release", metavar="LABEL", help="the reports of the workers of that release")
        which.add_argument("--id", type=report_id, metavar="ID", help="the report of that id alone")
        which.add_argument(
            "--advice",
            action="store_true",
            help="no report, but what the newest ones recommend: the grace period, jobs and hooks to change",
        )
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="text for people, the newest report at the bottom; or json for programs, the newest first: "
            "a list, or one object with --last and --id (default: %(default)s)",
        )
        parser.add_argument(
            "--fail-if-unclean",
            action="store_true",
            help="exit with 75 if jobs were interrupted, and with 70 if a hook failed or a worker was forced, crashed "
            "or killed: in the deploy in which --release ended, or else in the reports that are shown",
        )
        parser.add_argument(
            "--limit",
            type=positive_number,
            default=LIMIT,
            metavar="N",
            help="at most so many reports (default: %(default)s)",
        )

    def handle(self, **options: Any) -> None:
        archive_everything(ARCHIVE_SECONDS)
        if options["advice"]:
            return self._advise(options["format"])
        alone = options["last"] or options["id"] is not None
        found = ShutdownReport.objects.order_by("-happened_at", "-id").prefetch_related("hooks", "jobs")
        if options["id"] is not None:
            found = found.filter(pk=options["id"])
        if options["worker"] is not None:
            found = found.filter(worker__startswith=options["worker"])
        if options["release"] is not None:
            found = found.filter(release=options["release"])
        try:
            if options["worker"] is not None and (exact := found.filter(worker=options["worker"])).exists():
                found = exact
            reports = [record_of(row) for row in found[: 1 if alone else options["limit"]]]
        except DatabaseError as error:
            raise CommandError(unreadable(error)) from error
        self._warn_of_dead_workers()
        if not reports:
            raise CommandError(_none_found(options))
        if options["format"] == "json":
            dicts = [report_json.plain(report) for report in reports]
            self.stdout.write(json.dumps(dicts[0] if alone else dicts, indent=2))
        else:
            self.stdout.write(f"\n\n{RULE}\n\n".join(report_text(report) for report in reversed(reports)))
        if options["fail_if_unclean"]:
            verdict = verdict_of(Counter(str(report.outcome) for report in reports))
            if options["release"] is not None:
                verdict = verdict_of_release(options["release"], utc_now())
            self.stdout.flush()
            sys.exit(verdict.value)

    def _advise(self, form: str) -> None:
        roll_up(ROLL_UP_SECONDS)
        try:
            with override("en"):  # As all that commands print, whatever LANGUAGE_CODE is.
                advice = advice_for()
        except DatabaseError as error:
            raise CommandError(unreadable(error)) from error
        if form == "json":
            self.stdout.write(json.dumps([asdict(each) for each in advice], indent=2))
        elif advice:
            self.stdout.write(advice_text(advice))
        else:
            self.stdout.write("No advice: too few shutdowns are known, or nothing was remarkable.")

    def _warn_of_dead_workers(self) -> None:
        """A worker that was killed has no report yet until another process has found it."""
        try:
            everywhere = journals(ARCHIVE_SECONDS)
        except Exception:  # Wrong queue settings can raise anything, and do not concern the archive.
            return
        for journal in everywhere:
            try:
                dead = dead_workers(journal.connection)
            except RedisError:
                continue  # Whatever depends on it reports that itself.
            finally:
                journal.connection.close()
            for registration in dead:
                if ShutdownReport.objects.filter(pk=registration.worker_id).exists():
                    continue  # Its report is stored; only its registration is left.
                name = one_line(registration.worker)
                self.stderr.write(
                    f"Worker {name} was killed. Its report is closed and its job requeued "
                    "by the next worker, or by manage.py archive_reports."
                )


def unreadable(error: DatabaseError) -> str:
    """What both commands say where the tables are missing, or their database is unreachable."""
    why = one_line(str(error).strip())
    return f"The shutdown reports cannot be read: {why}\nTheir tables are made by: manage.py migrate graceful"


def _none_found(options: dict[str, Any]) -> str:
    if options["id"] is not None:
        return f"There is no shutdown report with the id {options['id']!a}."
    if options["release"] is not None:
        return f"There is no shutdown report of the release {options['release']!a}."
    if options["worker"] is not None:
        return f"There is no shutdown report of a worker whose name begins with {options['worker']!a}."
    return "There is no shutdown report yet: one is written whenever a worker ends."
