"""What ``quietworkers`` and ``stopworkers`` have in common: whom they mean, and waiting until it is so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError

from graceful.core.deadline import Deadline
from graceful.management.arguments import release_label
from graceful.management.progress_line import ProgressLine
from graceful.reports.journal import Journal
from graceful.reports.sources import journals
from graceful.reports.text import plain
from graceful.worker.cluster.worker_commands import Command, Selection, Target, find, look_again, stock_workers

REDIS_SECONDS = 2.0
"""How long the servers may take together."""
LOOK_SECONDS = 0.3
NOBODY, USAGE = 1, 2

Followed = Callable[[Target], bool]


class TellingCommand(BaseCommand):
    """Tells living workers something over RQ's channel."""

    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="names of workers, in full")
        parser.add_argument("--host", metavar="HOST", help="those on this machine, as graceful_top shows its name")
        parser.add_argument("--queue", metavar="QUEUE", help="those that take jobs of this queue")
        parser.add_argument("--release", metavar="LABEL", type=release_label, help="those of this release")
        parser.add_argument("--all", action="store_true", help="all of them")

    def select(self, options: dict[str, Any]) -> list[Target]:
        """The living workers that are meant, on all servers that RQ_QUEUES names.

        Raises:
            CommandError: nobody is meant (2), nobody was found (1), or Redis is unreachable (69).
        """
        selectors = [options[each] for each in ("names", "host", "queue", "release")]
        if options["all"] == any(selectors):
            raise CommandError(
                "Say which workers: names, --host, --queue or --release, several to mean those that fit each of them; "
                "or --all alone.",
                returncode=USAGE,
            )
        selection = Selection(
            frozenset(options["names"]), options["host"] or None, options["queue"] or None, options["release"] or None
        )
        servers = journals(REDIS_SECONDS)
        named, failures = find(servers, Selection(selection.names))
        self.failures = [plain(failure) for failure in failures]
        self.missing = sorted(selection.names - {target.worker.report.worker for target in named})
        targets = [target for target in named if target.worker in selection]
        if self.missing:
            self._name_missing(servers)
        if not targets:
            self._raise_failures()
            raise CommandError("No living worker fits.", returncode=NOBODY)
        return targets

    def tell(self, targets: Sequence[Target], command: Command, followed: Followed, seconds: float, say: str) -> None:
        """Tell them, and wait until they have followed.

        Args:
            targets: whom.
            command: what.
            followed: whether one of them is as wanted.
            seconds: how long to wait at most.
            say: what is waited for, for the line.
        """
        line, deadline = ProgressLine(self.stdout), Deadline.after(seconds)
        while True:
            try:
                for target in targets:
                    target.tell(command)
                look_again(targets)
                left = [target for target in targets if not followed(target)]
                self._away = ""
            except RedisError as error:
                self._away = plain(f"Redis is unreachable: {error}")
                line.show("Redis is unreachable")
            else:
                if not left:
                    break
                waiting = plain(", ".join(target.words for target in left[:3])) + (", ..." if len(left) > 3 else "")
                line.show(f"{len(targets) - len(left)} of {len(targets)} {say}; waiting for {waiting}")
            if deadline.expired:
                break
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline.left())))
        line.end()

    def conclude(self, targets: Sequence[Target], followed: Followed, why_not: str) -> None:
        """Say what became of each.

        Raises:
            CommandError: Redis is unreachable (69), some have not followed (75), a name was not found (1).
        """
        not_followed = [target for target in targets if not followed(target)]
        for target in targets:
            if followed(target):
                self.stdout.write(plain(target.words))
        if self._away:
            self.failures.append(self._away)
        self._raise_failures()
        if not_followed:
            lines = [plain(f"{target.words}: {why_not}") for target in not_followed]
            raise CommandError("\n".join(lines), returncode=os.EX_TEMPFAIL)
        if self.missing:
            raise CommandError("Not all of the named workers were found.", returncode=NOBODY)

    def _name_missing(self, servers: Sequence[Journal]) -> None:
        stock: set[str] = set()
        for journal in servers:
            with suppress(RedisError):  # Said already.
                stock.update(stock_workers(journal.connection, self.missing))
        for name in self.missing:
            known = "is a worker of RQ that is not graceful" if name in stock else "is not the name of a living worker"
            self.stderr.write(plain(f"{name} {known}"))

    def _raise_failures(self) -> None:
        if self.failures:
            raise CommandError("\n".join(self.failures), returncode=os.EX_UNAVAILABLE)
