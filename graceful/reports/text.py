"""A shutdown report as plain text, for a terminal: ASCII only, whatever names and errors hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from graceful.core.histogram import BOUNDS
from graceful.core.phases import Outcome, Phase
from graceful.core.post_mortem import last_seen
from graceful.core.records import HookResult, InFlightJob, PeakMemory, ShutdownReport
from graceful.core.text import escaped, one_line
from graceful.memory import MEGABYTE

LABEL = 10
"""Width of the left column."""
RQ_NAME = re.compile("[0-9a-f]{32}")
"""The name that RQ gives to a worker."""
SHORT = 60
"""Characters of any other name in a narrow place."""


def report_text(report: ShutdownReport) -> str:
    """The whole report, the outcome first.

    Every character that is not printable ASCII is escaped, so that a name cannot move the cursor of a terminal.
    """
    parts = [_head(report), _timeline(report), _jobs(report), _hooks(report)]
    if report.notes:
        parts.append(["Notes", *_indented(report.notes, 2)])
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts)


def printable_text(text: str) -> str:
    """``text`` with its line breaks, and every other control and format character escaped."""
    return "\n".join(one_line(line.expandtabs()) for line in text.splitlines())


def plain(text: str) -> str:
    """``text`` in printable ASCII: everything else is escaped, and line breaks too."""
    return "".join(char if " " <= char <= "~" else escaped(char) for char in text)


def seconds_text(seconds: float | None) -> str:
    """A duration for people to read: ``0.04 s``, ``2.31 s``, ``3 min 5 s``, or ``-``."""
    if seconds is None:
        return "-"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms" if seconds > 0 else "0 s"
    if seconds < 99.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def quantile_text(seconds: float | None) -> str:
    """A quantile of a histogram for people to read; of one in the first bucket only its bound is known."""
    return f"< {BOUNDS[0]:g} s" if seconds and seconds <= BOUNDS[0] else seconds_text(seconds)


def local_time(at: datetime) -> str:
    """A moment in the local time zone, which is Django's ``TIME_ZONE``: ``2026-11-23 18:07:28.022+01:00``."""
    try:
        at = at.astimezone()
    except (OverflowError, ValueError, OSError):
        pass  # At the edge of the calendar there may be no such local time.
    return at.isoformat(" ", "milliseconds")


def short_seconds(seconds: float) -> str:
    """A duration that changes while one looks at it: ``7 s``, ``3 min 5 s``."""
    return f"{max(0, int(seconds))} s" if seconds < 100 else seconds_text(seconds)


def progress_words(done: int, total: int | None) -> str:
    """``39 of 200``, or ``39 done`` where the total is unknown."""
    return f"{done} done" if total is None else f"{done} of {total}"


def megabytes_text(size: int) -> str:
    """An amount of memory for people to read: ``183 MB``."""
    return f"{max(1, round(size / MEGABYTE))} MB"


def peak_words(peak: PeakMemory) -> str:
    """``at most 120 MB, and 480 MB in a work horse``; empty if nothing is known."""
    if peak.worker is None:
        return ""
    horse = "" if peak.horse is None else f", and {megabytes_text(peak.horse)} in a work horse"
    return f"at most {megabytes_text(peak.worker)}{horse}"


def short_name(name: str, most: int = SHORT) -> str:
    """A name for a place of so many characters: RQ's own for a worker, 32 hexadecimal digits, by its first 8."""
    if RQ_NAME.fullmatch(name):
        return name[:8]
    shown = one_line(name[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _head(report: ShutdownReport) -> list[str]:
    outcome = (report.outcome or f"not sealed, last phase {report.phase}").replace("_", " ").upper()
    code = "not seen" if report.exit_code is None else str(report.exit_code)
    why = (report.reason or "unknown").replace("_", " ")
    rows = [
        ("outcome", f"{outcome}, exit code {code}"),
        ("reason", f"{why} ({report.signal})" if report.signal else why),
        ("worker", f"{report.worker} (pid {report.pid})"),
        ("host", report.hostname),
        ("queues", ", ".join(report.queues)),
        ("release", report.release),
        ("class", report.worker_class),
        ("memory", peak_words(report.peak)),
        ("report", report.id),
    ]
    return [f"Shutdown of worker {plain(report.worker)}", *_labelled(rows)]


def _timeline(report: ShutdownReport) -> list[str]:
    moments = [
        ("started", report.started_at, ""),
        ("requested", report.requested_at, ""),
        ("drained", report.drained_at, f"drain {seconds_text(report.seconds.drain)}"),
        _end(report),
    ]
    lines = [f"  {label:<{LABEL}}{local_time(at)}  {note}" for label, at, note in moments if at is not None]
    lines.append(f"  {'total':<{LABEL}}{seconds_text(report.seconds.total)}")
    if report.phase is not Phase.SEALED:
        lines.append(f"  {'reached':<{LABEL}}{report.phase}")
    return ["Phases", *lines]


def _end(report: ShutdownReport) -> tuple[str, datetime | None, str]:
    if report.outcome is not Outcome.KILLED:
        return "ended", report.ended_at, f"hooks {seconds_text(report.seconds.hooks)}"
    return ("found", report.ended_at, "dead") if last_seen(report) is None else ("last seen", report.ended_at, "alive")


def _jobs(report: ShutdownReport) -> list[str]:
    jobs = report.jobs
    lines = [f"Jobs: {jobs.finished} finished, {jobs.failed} failed, {len(jobs.in_flight)} in flight at the shutdown"]
    table = [
        (job.outcome.replace("_", " "), seconds_text(job.seconds), job.id, _job_words(job)) for job in jobs.in_flight
    ]
    for row, job in zip(_aligned(table), jobs.in_flight, strict=True):
        lines += [f"  {row}", *_indented(job.stack, 6)]
    return lines


def _job_words(job: InFlightJob) -> str:
    times = ", interrupted once so far" if job.interruptions == 1 else ""
    if job.interruptions > 1:
        times = f", interrupted {job.interruptions} times so far"
    return f"{job.function} from {job.queue}{times}"


def _hooks(report: ShutdownReport) -> list[str]:
    if not report.hooks:
        return ["Hooks: none"]
    lines = ["Hooks"]
    table = [
        (hook.outcome.replace("_", " "), seconds_text(hook.seconds), hook.name, hook_words(hook))
        for hook in report.hooks
    ]
    for row, hook in zip(_aligned(table), report.hooks, strict=True):
        lines += [f"  {row}", *_indented(hook.traceback, 6)]
    return lines


def hook_words(hook: HookResult) -> str:
    """What a hook said, or what went wrong in it, in one line."""
    words = [one_line(each) for each in (hook.detail, hook.error) if each]
    if hook.outcome == "timed_out":
        words.append(f"allowed {seconds_text(hook.timeout)}")
    return "; ".join(words)


def _labelled(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {label:<{LABEL}}{plain(value)}" for label, value in rows if value]


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with all columns but the last as wide as their widest cell, within reason."""
    cells = [[plain(cell) for cell in row] for row in table]
    widths = [min(40, max(len(cell) for cell in column)) for column in zip(*cells, strict=True)][:-1]
    return [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in cells
    ]


def _indented(text: str, spaces: int) -> list[str]:
    return [" " * spaces + plain(line.expandtabs()) for line in text.splitlines()]
