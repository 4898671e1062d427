"""A live line on the terminal while a worker drains, and a table of the exit hooks at the end.

For a person who has pressed Ctrl+C. Nothing of the shutdown waits for it: a thread of its own draws, over a descriptor
that never blocks. Log lines clear it in the same write; it comes back below them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import datetime
from typing import Any

from graceful import signals
from graceful.core.limits import distinct
from graceful.core.phases import HookOutcome, Phase
from graceful.core.records import HookResult, InFlightJob, ShutdownReport, utc_now
from graceful.core.shutdown import State
from graceful.jobs.progress import Progress
from graceful.reports.terminal import CLEAR_LINE, Row, Terminal, load_rich, shortened, styled, table, wants_colour
from graceful.reports.text import hook_words, plain, progress_words, seconds_text, short_seconds
from graceful.resume.clock import shutdown_requested
from graceful.threads import started
from graceful.worker.horse.progress_reader import ProgressReader
from graceful.worker.worker import GracefulMixin

FRAME_SECONDS = 0.2
PROGRESS_SECONDS = 1.0
"""So long Redis may take for the job's progress."""
TABLE_SECONDS = 0.2
"""How long the terminal may take for the table of the hooks: the end of the process waits for it."""
SHORTEST_NAME = 12
STYLES = {HookOutcome.OK: "green", HookOutcome.SKIPPED: "dim"}


class LiveLine:
    """Shows how one worker's shutdown goes.

    Args:
        worker: the worker, before its ``work()``.
        descriptor: the standard stream that is the terminal.
    """

    def __init__(self, worker: GracefulMixin, descriptor: int) -> None:
        self._worker = worker
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._terminal: Terminal | None = None
        self._rich: Any = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawn = False
        signals.shutdown_requested.connect(self._begin)
        for handler in _handlers_on_terminals():
            handler.setFormatter(_AboveTheLine(handler.formatter or logging.Formatter(), self._may_be_there))

    def end(self, report: ShutdownReport | None) -> None:
        """Clear the line, and show the hooks; at most for :data:`TABLE_SECONDS`, whatever the terminal does."""
        self._over.set()
        signals.shutdown_requested.disconnect(self._begin)
        if self._terminal is None or not self._lock.acquire(timeout=TABLE_SECONDS):
            return
        text = CLEAR_LINE if self._drawn else ""
        if report is not None and report.hooks:
            rows = [_hook_row(hook) for hook in report.hooks]
            heads = ("exit hook", "time", "name", "")
            text += table(heads, rows, self._terminal.columns, colour=wants_colour(), rich=self._rich)
        if self._terminal.in_foreground:
            self._terminal.write(text, TABLE_SECONDS)

    def _begin(self, worker: str, **_: object) -> None:
        if worker != self._worker.name or self._terminal is not None or os.getpid() != self._pid:
            return
        try:
            self._terminal = Terminal(self._descriptor)
        except OSError:
            return
        started(threading.Thread(target=self._draw, name="graceful-live-line", daemon=True))

    def _may_be_there(self) -> bool:
        """Whether a log record could come on top of the line: in the worker, or in its work horse."""
        return self._drawn if os.getpid() == self._pid else shutdown_requested()

    def _draw(self) -> None:
        assert self._terminal is not None
        progress = ProgressReader(self._worker.connection, PROGRESS_SECONDS)
        hook, hook_at = "", 0.0
        while not self._over.wait(FRAME_SECONDS):
            state, now = self._worker.shutdown_state, time.monotonic()
            if state is None or state.sealed:
                break
            if state.hook != hook:
                hook, hook_at = state.hook, now
            done = progress.of(state.job) if state.job is not None else None
            line = line_of(state, now, utc_now(), now - hook_at, done, self._terminal.columns - 1)
            with self._lock:
                if not self._over.is_set() and self._terminal.in_foreground:
                    self._drawn = True
                    self._terminal.write(CLEAR_LINE + styled(line, "bold", wants_colour()))
            if self._rich is None:
                self._rich = load_rich()  # Not before there is time for it.


def line_of(
    state: State, now: float, wall: datetime, hook_seconds: float, progress: Progress | None, columns: int
) -> str:
    """The line, of at most so many characters.

    Args:
        state: the state of the shutdown.
        now: the monotonic instant.
        wall: the wall clock's time.
        hook_seconds: how long the exit hook that runs now has run.
        progress: of the job in flight.
        columns: room for it.
    """
    limits = state.limits
    if limits is None:
        return ""
    end = short_seconds(limits.end.at - now)
    if state.hook:
        return _fitted("Exit hook ", state.hook, f": {short_seconds(hook_seconds)}, {end} left", columns)
    job = state.job
    if job is None or state.phase not in (Phase.REQUESTED, Phase.DRAINING):
        return f"Stopping, {end} left"[:columns]
    asked = len(distinct(state.stops))
    if state.killed:
        verb, next_limit, again = "Killing ", f"{end} left", ""
    elif state.interrupt_sent:
        verb, next_limit, again = "Interrupting ", f"killed in {short_seconds(limits.hard.at - now)}", "kill now"
    else:
        left = short_seconds(limits.soft.at - now)
        verb, next_limit, again = "Waiting for ", f"interrupted in {left}", "interrupt now"
    facts = [_elapsed(job, state, now, wall)]
    if progress is not None:
        facts.append(progress_words(progress.done, progress.total))
    hint = f". Ctrl+C again: {again}" if again and asked < 3 else ""
    return _fitted(verb, f"{job.function} ({job.id})", f": {', '.join(facts)}; {next_limit}{hint}", columns)


def _elapsed(job: InFlightJob, state: State, now: float, wall: datetime) -> str:
    if job.started_at is not None:
        return short_seconds((wall - job.started_at).total_seconds())
    return short_seconds(now - state.stops[0])


def _fitted(before: str, name: str, after: str, columns: int) -> str:
    """Cut the name first: what comes after it changes, and is what one looks at."""
    name, room = plain(name), max(SHORTEST_NAME, columns - len(before) - len(after))
    return f"{before}{shortened(name, room)}{after}"[:columns]


def _hook_row(hook: HookResult) -> Row:
    words = (hook.outcome.replace("_", " "), seconds_text(hook.seconds), hook.name, hook_words(hook))
    return Row(words, STYLES.get(hook.outcome, "red"))


class _AboveTheLine(logging.Formatter):
    """Clears the live line in the same write as the record that is logged, so that nothing comes in between.

    Args:
        formatter: the handler's own.
        may_be_there: whether there is a line to clear.
    """

    def __init__(self, formatter: logging.Formatter, may_be_there: Any) -> None:
        super().__init__()
        self._formatter = formatter
        self._may_be_there = may_be_there

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        return CLEAR_LINE + text if self._may_be_there() else text


def _handlers_on_terminals() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = {handler for each in loggers if isinstance(each, logging.Logger) for handler in each.handlers}
    return [each for each in handlers if isinstance(each, logging.StreamHandler) and _is_terminal(each.stream)]


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False  # No stream of a file, or a closed one.
