"""``manage.py graceful_top``: the living workers, refreshed every second."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError

from graceful.core.records import utc_now
from graceful.management.fleet_table import fleet_table, summary
from graceful.reports.journal import Journal
from graceful.reports.sources import journals
from graceful.reports.terminal import load_rich, wants_colour
from graceful.reports.text import local_time, plain
from graceful.worker.cluster.fleet import LiveWorker, fleet

REFRESH_SECONDS = 1.0
REDIS_SECONDS = 2.0
"""How long the servers may take together; an unreachable one is named, and asked again at the next refresh."""
SCREEN, SCREEN_BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The alternate screen without a cursor, and back (xterm's control sequences)."""
HOME, REST, END = "\x1b[H", "\x1b[J", "\x1b[K\r\n"
HEAD_LINES = 4
COLUMNS = 1000
"""Where there is no terminal: enough for every name."""


class Command(BaseCommand):
    help = (
        "Shows the living workers: state, release, host, the job in flight with its progress, and the seconds left "
        "of a shutdown. Refreshes every second; q or Ctrl+C ends it."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="print one table and end, as without a terminal; exits with 1 on errors"
        )

    def handle(self, **options: Any) -> None:
        """Show the workers until a key is pressed.

        Raises:
            CommandError: with ``--once``: a Redis is unreachable. What is known is printed nevertheless.
        """
        servers = journals(REDIS_SECONDS)
        live = not options["once"] and sys.stdin.isatty() and sys.stdout.isatty()
        if live and os.environ.get("TERM", "dumb") != "dumb":
            self._watch(servers)
            return
        workers, failures = _ask(servers)
        terminal = sys.stdout.isatty()
        columns = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else COLUMNS
        self.stdout.write(fleet_table(workers, utc_now(), columns, colour=terminal and wants_colour()))
        if failures:
            raise CommandError("\n".join(failures))
        if not workers:
            self.stderr.write("No graceful worker is registered on the servers that RQ_QUEUES names.")

    def _watch(self, servers: list[Journal]) -> None:
        rich, colour = load_rich(), wants_colour()
        with _screen():
            while True:
                workers, failures = _ask(servers)
                columns, lines = os.get_terminal_size(sys.stdout.fileno())
                head = f"{summary(workers)}    {local_time(utc_now())[:19]}    q ends"
                text = "\n".join([head[:columns], *(each[:columns] for each in failures), ""])
                shown = workers[: max(1, lines - HEAD_LINES - len(failures))]
                text += fleet_table(shown, utc_now(), columns, colour=colour, rich=rich)
                if len(shown) < len(workers):
                    text += f"and {len(workers) - len(shown)} more"
                sys.stdout.write(HOME + text.replace("\n", END) + REST)
                sys.stdout.flush()
                if _ended():
                    return


def _ask(servers: list[Journal]) -> tuple[list[LiveWorker], list[str]]:
    """The workers on all servers, and what went wrong."""
    workers: list[LiveWorker] = []
    failures: list[str] = []
    for journal in servers:
        try:
            workers += fleet(journal.connection)
        except RedisError as error:
            failures.append(plain(f"{journal}: {error}"))
    return workers, failures


def _ended() -> bool:
    """Wait for the next refresh; whether a key or Ctrl+C ends the watching before it."""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], REFRESH_SECONDS)
        return bool(ready) and os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b"", b"\x03")
    except KeyboardInterrupt:
        return True


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own, keys without Enter; the terminal is as before afterwards, whatever happens."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(SCREEN)
        yield
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(SCREEN_BACK)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
