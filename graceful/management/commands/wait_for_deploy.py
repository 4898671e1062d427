"""``manage.py wait_for_deploy``: waits until a release has replaced the earlier ones, and exits by how that went."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.utils.translation import override

from graceful.core.deadline import Deadline
from graceful.core.records import utc_now
from graceful.core.text import one_line
from graceful.management.arguments import positive_number, release_label, seconds
from graceful.management.progress_line import ProgressLine
from graceful.reports.deploys.gate import Gate, Look, line, verdict, who_is_stale
from graceful.reports.deploys.records import Verdict
from graceful.reports.deploys.rows import Living
from graceful.reports.deploys.words import headline
from graceful.reports.sources import archive_everything
from graceful.threads import bounded
from graceful.worker.cluster.whole_fleet import living_workers

T = TypeVar("T")

TIMEOUT = 600.0
LOOK_SECONDS = 1.0
FLEET_SECONDS = 5.0
ARCHIVE_SECONDS = 10.0
DATABASE_SECONDS = 5.0
"""The database may take so long for an answer, or until the timeout if that is later."""


class Command(BaseCommand):
    help = (
        "Waits until every worker of the releases before this one is gone and this one has its workers. Exit code: 0 "
        "if all ended cleanly, 75 if jobs were interrupted, 70 if a hook failed or a worker was forced, crashed or "
        "killed, 1 if it was not over at the timeout, 69 if Redis or the database was unreachable then."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--release", required=True, type=release_label, metavar="LABEL", help="the new release")
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=TIMEOUT,
            metavar="SECONDS",
            help="how long to wait (default: %(default)g)",
        )
        parser.add_argument(
            "--workers",
            type=positive_number,
            default=1,
            metavar="N",
            help="the release has its workers once so many of them run (default: %(default)s)",
        )

    def handle(self, **options: Any) -> None:
        """Wait, and exit by the verdict."""
        gate = Gate(options["release"], options["workers"])
        deadline = Deadline.after(options["timeout"])
        self.line = ProgressLine(self.stdout)
        try:
            look, living = self._wait(gate, deadline)
            self.line.end()
            if not look.known:
                raise CommandError("Redis is unreachable: the workers are not known.", returncode=os.EX_UNAVAILABLE)
            archive_everything(ARCHIVE_SECONDS)
            deploys = _asked(lambda: gate.deploys(living, utc_now()), deadline)
        except (DatabaseError, TimeoutError) as error:
            self.line.end()
            why = one_line(str(error).strip())
            raise CommandError(f"The reports cannot be read: {why}", returncode=os.EX_UNAVAILABLE) from error
        with override("en"):
            for deploy in deploys:
                self.stdout.write(headline(deploy))
        found = verdict(deploys, look)
        if found is Verdict.STALE:
            self._say_what_is_missing(gate, look)
        self._exit(found)

    def _wait(self, gate: Gate, deadline: Deadline) -> tuple[Look, Living]:
        while True:
            living = living_workers(min(FLEET_SECONDS, max(0.5, deadline.left())))
            try:
                look = _asked(functools.partial(gate.look, living), deadline)
            except (DatabaseError, TimeoutError):  # A failover during the deploy is waited out, as Redis's is.
                if deadline.expired:
                    raise
                self.line.show("The database is unreachable")
            else:
                self.line.show(line(gate, look))
                if look.over or deadline.expired:
                    return look, living
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline.left())))

    def _say_what_is_missing(self, gate: Gate, look: Look) -> None:
        name = one_line(gate.release)
        if not look.arrived:
            self.stderr.write(f"No worker of release {name} runs. Is GRACEFUL_RELEASE set to that label?")
        elif len(look.arrived) < look.wanted:
            self.stderr.write(f"Only {len(look.arrived)} of {look.wanted} workers of release {name} run.")
        if look.earlier:
            self.stderr.write(f"Stale, {len(look.earlier)} in all:")
            for each in who_is_stale(look):
                self.stderr.write(f"  {each}")

    def _exit(self, found: Verdict) -> NoReturn:
        words = {
            Verdict.CLEAN: "clean",
            Verdict.INTERRUPTED: "jobs were interrupted",
            Verdict.FAILED: "not clean",
            Verdict.STALE: "not over at the timeout",
        }
        self.stdout.write(f"Deploy: {words[found]}, exit code {found.value}")
        self.stdout.flush()
        sys.exit(found.value)


def _asked(question: Callable[[], T], deadline: Deadline) -> T:
    """What the database answers: in a thread, since a driver may wait for a hanging one for ever.

    Raises:
        django.db.DatabaseError: the database is unreachable.
        TimeoutError: it does not answer.
    """

    def asked() -> T:
        try:
            return question()
        finally:
            connections.close_all()

    asking = bounded(asked, max(DATABASE_SECONDS, deadline.left()))
    if asking.error is not None:
        raise asking.error
    return asking.value  # type: ignore[return-value]
