"""The live line in words, and tables for a terminal."""

from __future__ import annotations

import os
import pty
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from graceful.core.events import HookStarted, JobTaken, StopAsked, Tick, TornDown
from graceful.core.limits import Budget
from graceful.core.phases import Reason
from graceful.core.records import InFlightJob
from graceful.core.shutdown import State, step
from graceful.jobs.progress import Progress
from graceful.reports.terminal import Row, Terminal, load_rich, table, terminal_descriptor, wants_colour
from graceful.worker.shutdown.live_line import line_of

WALL = datetime(2026, 11, 25, 12, tzinfo=UTC)
JOB = InFlightJob("f00", "shop.jobs.send", "default", started_at=WALL - timedelta(seconds=125))
SGR = re.compile(r"\x1b\[\d+(;\d+)*m")


def after(*events: tuple[float, Any]) -> State:
    """The state after events at these instants, with 25 s in all, 5 for the hooks and 3 for the interruption."""
    state = State(Budget(25.0, 5.0, 3.0), started_at=0.0)
    for now, event in events:
        state, _ = step(state, event, now)
    return state


def stop(at: float) -> tuple[float, StopAsked]:
    return at, StopAsked(at, Reason.SIGNAL, "SIGINT")


TAKEN = (0.0, JobTaken(JOB))
DRAINING = after(TAKEN, stop(10.0))


@pytest.mark.parametrize(
    ("state", "now", "words"),
    [
        (
            DRAINING,
            13.5,
            "Waiting for shop.jobs.send (f00): 2 min 5 s, 39 of 200; interrupted in 13 s. Ctrl+C again: interrupt now",
        ),
        (
            after(TAKEN, stop(10.0), stop(12.0), (12.0, Tick())),
            12.5,
            "Interrupting shop.jobs.send (f00): 2 min 5 s, 39 of 200; killed in 2 s. Ctrl+C again: kill now",
        ),
        (
            after(TAKEN, stop(10.0), stop(12.0), stop(14.0), (14.0, Tick())),
            14.0,
            "Killing shop.jobs.send (f00): 2 min 5 s, 39 of 200; 21 s left",
        ),
        (after(stop(10.0)), 11.0, "Stopping, 24 s left"),
        (after(stop(10.0), (11.0, TornDown()), (11.0, HookStarted("a.hook"))), 12.0, "Exit hook a.hook: 1 s, 4 s left"),
        (after(), 1.0, ""),
    ],
)
def test_what_the_line_says(state: State, now: float, words: str) -> None:
    """What is waited for, how long already, its progress, what happens when, and what another Ctrl+C does."""
    assert line_of(state, now, WALL, 1.0, Progress("loop", 39, 200, False), 200) == words


def test_progress_without_a_total_and_without_any() -> None:
    """A loop of unknown length shows what is done; a job without one shows its time alone."""
    assert ": 2 min 5 s, 39 done; " in line_of(DRAINING, 11.0, WALL, 0.0, Progress("loop", 39, None, False), 200)
    assert ": 2 min 5 s; " in line_of(DRAINING, 11.0, WALL, 0.0, None, 200)


@pytest.mark.parametrize("columns", [10, 40, 79, 120])
def test_the_line_fits_and_cannot_harm_the_terminal(columns: int) -> None:
    """It has one row, whatever the names are and however narrow the terminal is; names are cut before the times."""
    job = JOB._replace(function="shop\x1b[2J\n\u202e." + "x" * 500)
    line = line_of(after((0.0, JobTaken(job)), stop(10.0)), 11.0, WALL, 0.0, None, columns)
    assert len(line) <= columns
    assert line.isascii()
    assert line.isprintable()
    assert (columns < 100) or line.endswith("Ctrl+C again: interrupt now")


@pytest.mark.parametrize("with_rich", [False, True])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_with_and_without_rich(with_rich: bool, colour: bool, columns: int) -> None:
    """No line is wider than the terminal, every row is there, names are escaped, and NO_COLOR's table has no colour."""
    rows = [Row(("ok", "[red]a.b[/red]", "\x1b[2J\u202e"), "green"), Row(("failed", "x" * 300, "y" * 300), "red")]
    rich = load_rich() if with_rich else None
    assert not with_rich or rich is not None
    text = table(("state", "name", "said"), rows, columns, colour=colour, rich=rich)
    assert bool(SGR.search(text)) == colour
    bare = [line.rstrip() for line in SGR.sub("", text).splitlines()]
    assert all(len(line) <= columns for line in bare)
    assert all(line.isprintable() for line in bare)
    assert "[red]a.b" in bare[-2]
    assert bare[-1].startswith("failed")
    assert ("\u2500" in text) == with_rich


def test_an_empty_table_has_its_heads() -> None:
    """Without rows there are the heads."""
    assert table(("a", "b"), [], 80, colour=False) == "a  b\n"


def test_who_wants_a_line_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """stderr comes before stdout; a dumb or unknown terminal gets no line; an empty NO_COLOR means nothing."""
    monkeypatch.setenv("TERM", "xterm")
    terminals = {1, 2}
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor in terminals)
    assert terminal_descriptor() == 2
    terminals.discard(2)
    assert terminal_descriptor() == 1
    monkeypatch.setenv("TERM", "dumb")
    assert terminal_descriptor() is None
    monkeypatch.delenv("TERM")
    assert terminal_descriptor() is None
    monkeypatch.setenv("TERM", "xterm")
    terminals.clear()
    assert terminal_descriptor() is None
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour()


@pytest.fixture
def opened() -> Iterator[tuple[Terminal, int]]:
    """A terminal, and the other end of it."""
    master, slave = pty.openpty()
    terminal = Terminal(slave)
    yield terminal, master
    for descriptor in (slave, master, terminal._own):
        with suppress(OSError):
            os.close(descriptor)


def test_a_terminal_that_nobody_reads_takes_no_time(opened: tuple[Terminal, int]) -> None:
    """What it does not take is dropped; writing neither waits nor fails."""
    terminal, _ = opened
    for _ in range(100):
        terminal.write("x" * 1000)


def test_a_descriptor_that_is_no_terminal_any_more_gets_nothing(opened: tuple[Terminal, int]) -> None:
    """An exit hook closes all descriptors, and the number is a socket's next: nothing is written to that."""
    terminal, _ = opened
    here, there = socket.socketpair()
    there.setblocking(False)
    os.dup2(here.fileno(), terminal._own)
    terminal.write("not for a database")
    with pytest.raises(BlockingIOError):
        there.recv(1)
    os.close(terminal._own)
    terminal.write("for nobody")
    assert not terminal.in_foreground
    assert terminal.columns == 80
    here.close()
    there.close()
