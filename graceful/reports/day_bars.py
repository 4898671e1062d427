"""Pictures with a slot for each day: paths in a box of ``SLOT`` units for each and 100 units of height.

What a picture shows is always in words too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

SLOT, BAR = 10, 8
LEAST = 3
"""Least height of what was not clean, so that one in a thousand is seen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Bars of one colour, as a path of SVG."""

    kind: str
    path: str
    words: str = ""


def x_of(day: date, first: date) -> int:
    return SLOT * (day - first).days


def bar(x: int, top: float, bottom: float) -> str:
    return f"M{x + 1} {bottom:.4g}V{top:.4g}h{BAR}V{bottom:.4g}z"
