"""What the picture of a deploy is made of: the axis of time, and shapes as SVG takes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

NARROWEST = 0.3
"""Narrowest part in percent of the axis, so that it stays visible."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar; ``x`` and ``width`` as SVG takes them."""

    kind: str
    x: str
    width: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture: a worker, or a group of them.

    Args:
        state: the outcome, ``stopping``, ``started`` or ``group``; the row's badge.
        deadline: where the deadline is on the axis, empty if it is unknown or off the axis.
    """

    label: str
    title: str
    report: str
    state: str
    words: str
    seconds: str
    parts: tuple[Part, ...]
    deadline: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    x: str
    label: str


@dataclass(frozen=True, slots=True)
class Block:
    """A step of the capacity: its height from the bottom, in percent."""

    x: str
    width: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the timeline of a deploy shows."""

    rows: tuple[Row, ...]
    starts: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    blocks: tuple[Block, ...]
    grouped: bool
    aligned: bool
    kinds: frozenset[str]


class Axis:
    """Times as percent of the whole."""

    def __init__(self, first: datetime, last: datetime) -> None:
        self.first = first
        self.seconds = max(0.001, (last - first).total_seconds())

    def at(self, moment: datetime) -> float:
        return min(100.0, max(0.0, 100 * (moment - self.first).total_seconds() / self.seconds))

    def part(self, kind: str, start: datetime, end: datetime, title: str) -> Part:
        left, right = self.at(start), self.at(end)
        width = max(NARROWEST, right - left)
        return Part(kind, f"{min(left, 100 - width):.2f}%", f"{width:.2f}%", title)
