"""Foreign text, escaped and shortened for a log line, a page or a report."""

from __future__ import annotations

import signal

TEXT_LIMIT = 16 * 1024
"""Characters kept of each traceback, stack and message."""
CUT_MARK = "\n[... {} characters cut ...]\n"


def one_line(text: str) -> str:
    """``text``, safe for a terminal or a log line.

    Every character that is not printable is escaped: control and format characters including line breaks and direction
    marks, and invalid Unicode. For every text that comes from Redis or the database.
    """
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    """One character as Python's source writes it, in ASCII."""
    return char.encode("unicode_escape").decode("ascii")


def signal_name(number: int) -> str:
    """A signal's name, ``"SIGKILL"``; ``"signal 40"`` for one without: most real-time signals (``signal(7)``)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """``text`` of at most ``limit`` characters: the middle of a longer one is replaced by a mark."""
    if len(text) <= limit:
        return text
    mark = CUT_MARK.format(len(text) - limit)
    room = max(0, limit - len(mark))
    head = room // 2
    return text[:head] + mark + text[len(text) - (room - head) :]
