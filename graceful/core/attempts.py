"""The evidence of a job that does not come to its end: how each attempt at it ended, one JSON object a line.

It stands in the job's own hash in Redis, bounded, and is read back as untrusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from graceful.core.text import cut, one_line
from graceful.core.untrusted import Fields, parse
from graceful.exceptions import UnreadableReport

MOST_ATTEMPTS = 10
"""Kept of one job, the newest."""
LINE_LIMIT = 4096
"""Characters of one line."""
NAME_LIMIT = 200
FRAME = r'^[ \t]{0,40}File "([^"\n]{1,1000})", line (\d{1,9})(,?)'
"""Of a traceback, or, without the comma, of faulthandler; not compiled here, since a worker hardly ever needs it."""


class AttemptEnd(StrEnum):
    """How an attempt at a job ended that does not end it."""

    INTERRUPTED = "interrupted"
    """By ``JobInterrupted``, at a shutdown."""
    KILLED = "killed"
    """At the hard limit of a shutdown."""
    CUT_OFF = "cut_off"
    """Its worker could not see it to its end, because of an error of its own or of Redis."""
    CANNOT_START = "cannot_start"
    """Its work horse could not begin."""
    WORKER_DIED = "worker_died"
    """Its worker was killed while the job ran."""


WORDS = {
    AttemptEnd.INTERRUPTED: "interrupted by a shutdown",
    AttemptEnd.KILLED: "killed at the hard limit of a shutdown",
    AttemptEnd.CUT_OFF: "cut off by an error of its worker or of Redis",
    AttemptEnd.CANNOT_START: "its work horse could not begin",
    AttemptEnd.WORKER_DIED: "its worker was killed",
}


class Attempt(NamedTuple):
    """One attempt.

    Args:
        ended: how it ended.
        at: when that was found out.
        worker: name of its worker.
        hostname: its machine.
        function: dotted name of the job's function; empty if unknown.
        signal: what ended the job's process, for instance ``"SIGKILL"``; empty if unknown.
        peak_bytes: the most that the job's process had resident; None if unknown.
        out_of_memory: whether the kernel has killed for memory in the worker's control group.
        stack: where the job stood; empty if unknown.
    """

    ended: AttemptEnd
    at: datetime
    worker: str
    hostname: str
    function: str = ""
    signal: str = ""
    peak_bytes: int | None = None
    out_of_memory: bool = False
    stack: str = ""


def dump(attempt: Attempt) -> str:
    """One line of JSON of at most ``LINE_LIMIT`` characters: names are cut, and of the stack its middle."""
    room = LINE_LIMIT // 2
    line = _dump(attempt, room)
    while len(line) > LINE_LIMIT and room:
        room //= 2
        line = _dump(attempt, room)
    return line


def load(text: str | bytes | None) -> tuple[Attempt, ...]:
    """The attempts, the oldest first; what cannot be read is passed over."""
    lines = text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""
    found: list[Attempt] = []
    for line in lines.split("\n")[-MOST_ATTEMPTS:]:
        try:
            found.append(_load(Fields(parse(line[: 2 * LINE_LIMIT]), "")))
        except UnreadableReport:
            continue
    return tuple(found)


def described(attempts: Sequence[Attempt]) -> list[str]:
    """A line for each attempt, and last the stack of the newest that has one."""
    lines = [f"{number}. {_described(attempt)}" for number, attempt in enumerate(attempts, 1)]
    stacks = [attempt.stack for attempt in attempts if attempt.stack]
    return [*lines, "Where it stood last:", stacks[-1]] if stacks else lines


def place_of(stack: str) -> str:
    """File and line of the innermost frame: ``jobs.py:42``; empty if there is none."""
    frames = re.findall(FRAME, stack, re.MULTILINE)
    if not frames:
        return ""
    # faulthandler writes the innermost first.
    file, line, _ = next((frame for frame in reversed(frames) if frame[2]), frames[0])
    return f"{one_line(file.rsplit('/', 1)[-1])}:{line}"


def _described(attempt: Attempt) -> str:
    where = f"worker {one_line(attempt.worker)} on {one_line(attempt.hostname) or 'an unknown host'}"
    facts = [
        WORDS[attempt.ended],
        "probably out of memory" if attempt.out_of_memory else "",
        f"by {one_line(attempt.signal)}" if attempt.signal else "",
        "" if attempt.peak_bytes is None else f"peak memory {attempt.peak_bytes // 2**20} MB",
        f"at {place}" if (place := place_of(attempt.stack)) else "",
    ]
    return f"{attempt.at.isoformat(sep=' ', timespec='seconds')}, {where}: {', '.join(filter(None, facts))}"


def _dump(attempt: Attempt, room: int) -> str:
    name = min(NAME_LIMIT, room)
    plain: dict[str, Any] = {
        "ended": attempt.ended,
        "at": attempt.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "worker": cut(attempt.worker, name),
        "host": cut(attempt.hostname, name),
        "function": cut(attempt.function, name),
        "signal": attempt.signal[:32],
        "peak_bytes": attempt.peak_bytes,
        "out_of_memory": attempt.out_of_memory,
        "stack": cut(attempt.stack, room),
    }
    return json.dumps({key: value for key, value in plain.items() if value or key == "worker"})


def _load(fields: Fields) -> Attempt:
    return Attempt(
        ended=fields.word("ended", AttemptEnd),
        at=fields.moment("at"),
        worker=fields.text("worker"),
        hostname=fields.text_or_none("host") or "",
        function=fields.text_or_none("function") or "",
        signal=fields.text_or_none("signal") or "",
        peak_bytes=fields.count_or_none("peak_bytes"),
        out_of_memory=fields.parsed.get("out_of_memory") is True,
        stack=fields.text_or_none("stack") or "",
    )
