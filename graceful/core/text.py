"""Text from outside, made fit for a line of a log, a page or a report."""

from __future__ import annotations

TEXT_LIMIT = 16 * 1024
"""Characters kept of each traceback, stack and message."""
CUT_MARK = "\n[... {} characters cut ...]\n"


def one_line(text: str) -> str:
    """``text`` as it is safe in a terminal or a line of a log.

    Every character that is not printable is escaped: control and format characters, line breaks and direction marks
    among them, and what is no valid Unicode. For every text that comes from Redis or the database.
    """
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    """One character as Python's source writes it, in ASCII."""
    return char.encode("unicode_escape").decode("ascii")


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """``text`` of at most ``limit`` characters: where it is longer its middle gives way to a mark."""
    if len(text) <= limit:
        return text
    mark = CUT_MARK.format(len(text) - limit)
    room = max(0, limit - len(mark))
    head = room // 2
    return text[:head] + mark + text[len(text) - (room - head) :]
