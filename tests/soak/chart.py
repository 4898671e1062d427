"""The figures of a run as lines of text, and as one SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, LABEL = 720, 44, 300


def sparkline(values: Sequence[float], columns: int = 60) -> str:
    """The series in at most so many characters, from zero to its maximum."""
    top = max(values, default=0.0)
    points = shrunk(values, columns)
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] if top else BARS[0] for value in points)


def shrunk(values: Sequence[float], columns: int) -> list[float]:
    """At most so many values: of each stretch its largest."""
    count = min(columns, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    return [max(values[start:end]) for start, end in pairwise(edges)]


def svg(series: Mapping[str, Sequence[float]], growing: Sequence[str]) -> str:
    """One row a series, from zero to its maximum; what grows is red."""
    rows = [_row(index, name, values, name in growing) for index, (name, values) in enumerate(series.items())]
    size = f'width="{LABEL + WIDTH}" height="{HEIGHT * len(rows)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *rows, "</svg>", ""])


def _row(index: int, name: str, values: Sequence[float], growing: bool) -> str:
    top = max(values, default=0.0) or 1.0
    bottom = (index + 1) * HEIGHT - 6
    step = WIDTH / max(len(values) - 1, 1)
    points = " ".join(
        f"{LABEL + number * step:.1f},{bottom - value / top * (HEIGHT - 14):.1f}" for number, value in enumerate(values)
    )
    colour = "#b00020" if growing else "#1f6f43"
    label = f'<text x="6" y="{bottom - 8}" fill="{colour}">{escape(name)}: {values[-1] if values else 0:.4g}</text>'
    return f'{label}<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
