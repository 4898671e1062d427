"""The living workers as a table for a terminal, for ``graceful_top``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from graceful.core.phases import Phase
from graceful.core.records import ShutdownReport
from graceful.reports.builder import RUNNING_HOOK
from graceful.reports.terminal import Row, table
from graceful.reports.text import progress_words, short_seconds
from graceful.worker.cluster.fleet import LiveWorker, state_of

HEADS = ("state", "left", "worker", "release", "host", "pid", "job", "elapsed", "progress", "function")
STYLES = {"idle": "dim", "busy": "green", "quiet": "yellow", "silent": "red"}


def fleet_table(workers: Sequence[LiveWorker], now: datetime, columns: int, *, colour: bool, rich: Any = None) -> str:
    """One row a worker; every name that comes from Redis is escaped.

    Args:
        workers: of :func:`graceful.worker.cluster.fleet.fleet`.
        now: the time of the seconds that are shown.
        columns: width of the terminal.
        colour: whether to use styles.
        rich: what :func:`graceful.reports.terminal.load_rich` returned.
    """
    return table(HEADS, [_row(worker, now) for worker in workers], columns, colour=colour, rich=rich)


def summary(workers: Sequence[LiveWorker]) -> str:
    """How many workers are in which state, in one line."""
    states = [state_of(worker) for worker in workers]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(workers)} {'worker' if len(workers) == 1 else 'workers'}" + (f": {counts}" if counts else "")


def _row(worker: LiveWorker, now: datetime) -> Row:
    report, job, state = worker.report, worker.job, state_of(worker)
    left = "" if worker.deadline is None else short_seconds((worker.deadline - now).total_seconds())
    of_job = ("", "", "", "")
    if job is not None:
        elapsed = "" if job.started_at is None else short_seconds((now - job.started_at).total_seconds())
        progress = "" if job.progress_done is None else progress_words(job.progress_done, job.progress_total)
        of_job = (job.id, elapsed, progress, job.function or "?")
    elif report.phase is Phase.HOOKS:
        of_job = ("", "", f"hook {len(report.hooks) + 1}", _hook(report))
    where = (report.worker, report.release, report.hostname, str(report.pid))
    return Row((state, left, *where, *of_job), STYLES.get(state, "yellow"))


def _hook(report: ShutdownReport) -> str:
    return report.notes.rpartition(RUNNING_HOOK)[2]
