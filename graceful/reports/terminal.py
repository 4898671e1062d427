"""A person's terminal: whether there is one, how to write to it without ever waiting for it, and tables for it."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graceful.core.deadline import Deadline
from graceful.reports.text import plain

CLEAR_LINE = "\r\x1b[K"
STYLES = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}
"""Names of styles, as rich has them too, and their SGR codes (ECMA-48, 8.3.117)."""
NARROWEST = 9
"""Characters that a column keeps where the terminal is too narrow for all of them."""
GAP = "  "


def terminal_descriptor() -> int | None:
    """The standard stream on which a person sees what we write: stderr, or stdout; None without one."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return None
    return next((descriptor for descriptor in (2, 1) if os.isatty(descriptor)), None)


def wants_colour() -> bool:
    """Whether colours are welcome (https://no-color.org: not where ``NO_COLOR`` is set and not empty)."""
    return not os.environ.get("NO_COLOR")


class Terminal:
    """A terminal, written to over a descriptor of its own, which never blocks.

    A terminal that was stopped (Ctrl+S), or whose connection hangs, takes nothing more: whoever writes to the standard
    stream then waits for it. The descriptor is of another open file description, so that only it is non-blocking.

    Args:
        descriptor: a standard stream on the terminal.

    Raises:
        OSError: the terminal cannot be opened once more.
    """

    def __init__(self, descriptor: int) -> None:
        self._own = os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    @property
    def columns(self) -> int:
        try:
            return os.get_terminal_size(self._own).columns or 80
        except OSError:
            return 80

    @property
    def in_foreground(self) -> bool:
        """Whether it is ours to write to at this moment: a job in the background of a shell is not to draw in it."""
        try:
            return os.tcgetpgrp(self._own) == os.getpgrp()
        except OSError:
            return False  # It is not this process's terminal, or has been closed.

    def write(self, text: str, seconds: float = 0.0) -> None:
        """Write as much as it takes within so many seconds. Never raises an ``OSError``."""
        deadline, left = Deadline.after(seconds), text.encode("utf-8", "replace")
        try:
            while left and os.isatty(self._own):  # An exit hook may have closed it; the number may be a socket's now.
                try:
                    left = left[os.write(self._own, left) :]
                except BlockingIOError:
                    if deadline.expired:
                        return
                    poll = select.poll()
                    poll.register(self._own, select.POLLOUT)
                    poll.poll(deadline.left() * 1000)
        except OSError:
            pass  # Nobody is there any more.


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Args:
        cells: its text; whatever is no printable ASCII is escaped.
        style: of its first cell, one of :data:`STYLES`, or empty.
    """

    cells: tuple[str, ...]
    style: str = ""


def styled(text: str, style: str, colour: bool) -> str:
    """``text`` in one of :data:`STYLES`."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style else text


def table(heads: Sequence[str], rows: Sequence[Row], columns: int, *, colour: bool, rich: Any = None) -> str:
    """A table, no line of it wider than the terminal; it ends with a line break.

    Args:
        heads: of its columns.
        rows: its rows.
        columns: width of the terminal.
        colour: whether to use styles at all.
        rich: what :func:`load_rich` returned; None for plain columns.
    """
    cells = [[plain(cell) for cell in row.cells] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    while sum(widths) + len(GAP) * len(widths) > columns and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    if rich is not None:
        return _rich_table(rich, heads, cells, [row.style for row in rows], widths, colour)
    lines = [styled(_line(heads, widths)[:columns], "bold", colour)]
    for row, texts in zip(rows, cells, strict=True):
        line = _line(texts, widths)[:columns]
        first = min(widths[0], len(line))
        lines.append(styled(line[:first], row.style, colour) + line[first:])
    return "\n".join(lines) + "\n"


def load_rich() -> Any:
    """The package rich, of the extra ``terminal``, or None where it is not installed."""
    try:
        import rich.box
        import rich.console
        import rich.table
        import rich.text
    except ImportError:
        return None
    return rich


def shortened(text: str, width: int) -> str:
    """``text`` of at most ``width`` characters, with ``..`` at the end of a longer one."""
    return text if len(text) <= width else text[: width - 2] + ".."


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(cells, widths, strict=True)
    return GAP.join(f"{shortened(cell, width):<{width}}" for cell, width in pairs).rstrip()


def _rich_table(
    rich: Any, heads: Sequence[str], cells: list[list[str]], styles: list[str], widths: list[int], colour: bool
) -> str:
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    line = rich.box.SIMPLE_HEAD if unicode else None
    grid = rich.table.Table(box=line, show_edge=False, padding=(0, 1 if line else 2, 0, 0), header_style="bold")
    for head, width in zip(heads, widths, strict=True):
        grid.add_column(head, no_wrap=True, width=width, overflow="ellipsis" if unicode else "crop")
    for texts, style in zip(cells, styles, strict=True):
        grid.add_row(rich.text.Text(texts[0], style=style), *map(rich.text.Text, texts[1:]))
    out = io.StringIO()
    console = rich.console.Console(
        file=out,
        width=sum(widths) + len(GAP) * len(widths),
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
    )
    console.print(grid)
    return out.getvalue()
