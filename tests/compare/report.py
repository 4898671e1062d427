"""Table and chart of a comparison."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "comparison.md"
OUTPUT = ROOT / "docs" / "comparison"
COLUMNS = ("lost", "held", "failed", "doubled")
COLOURS = {
    "done": "#2e7d32",
    "doubled": "#f9a825",
    "failed": "#ef6c00",
    "held": "#8e24aa",
    "lost": "#c62828",
    "waiting": "#90a4ae",
}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a row for each peer, and below it who is best at what."""
    head = (
        *("", "jobs", "lost", "stuck", "failed", "done twice", "an interrupted job runs again after"),
        *("stop, idle", "stop, busy", "killed", "exit hooks", "known afterwards"),
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for result in results:
        if "not_available" in result:
            lines.append(
                f"| {result['title']} | not available here: {result['not_available']} |" + " |" * (len(head) - 2)
            )
            continue
        sums = sums_of(result)
        stops = [each for each in result["rounds"] if each["fault"] in ("deploy", "endless")]
        cells = [
            f"{result['title']} ({result['version']})",
            str(sums["jobs"]),
            *(str(sums[name]) for name in COLUMNS),
            again(result),
            seconds(result["idle"]),
            seconds([each["stop"] for each in stops if each["stop"] is not None]),
            f"{sum(each['killed'] for each in stops)} of {len(stops)}",
            f"{sum(bool(each['books']['hooks']) for each in stops)} of {len(stops)}",
            result["known"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdicts(results)]) + "\n"


def with_results(page: str, results: list[dict[str, Any]]) -> str:
    """The page with these results in the places of others."""
    how = "\n".join(f"- {result['title']}: {result['how']}" for result in results)
    for name, text in (("how", how), ("table", table(results).strip())):
        pattern = f"(<!-- {name} -->).*?(<!-- end -->)"
        page = re.sub(pattern, lambda found, told=text: f"{found[1]}\n\n{told}\n\n{found[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
    return page


def sums_of(result: dict[str, Any]) -> dict[str, int]:
    """How many jobs of all rounds came to what."""
    books = [each["books"] for each in result["rounds"]]
    counts = {name: sum(len(each[name]) for each in books) for name in COLOURS}
    return {"jobs": sum(each["jobs"] for each in result["rounds"]), **counts}


def again(result: dict[str, Any]) -> str:
    found = [seconds for each in result["rounds"] for seconds in each["books"]["again"].values()]
    times = sorted(each for each in found if each is not None)
    never = len(found) - len(times)
    told = f"{statistics.median(times):.1f} s, at most {times[-1]:.1f} s" if times else ""
    if never:
        told += f"{'; ' if told else ''}{never} of {len(found)} never"
    return told or "none was interrupted"


def seconds(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s, at most {max(values):.2f} s" if values else ""


def verdicts(results: list[dict[str, Any]]) -> list[str]:
    """Who is best in each column, computed: where a peer wins, it says so."""
    there = [result for result in results if result["rounds"]]
    if len(there) < 2:
        return []

    def best(what: str, value: Callable[[dict[str, Any]], float]) -> str:
        figures = {result["title"]: value(result) for result in there}
        least = min(figures.values())
        names = [title for title, figure in figures.items() if figure == least]
        return f"- {what}: {', '.join(names)} ({least:g})"

    return [
        best("Fewest jobs lost or stuck", lambda each: sums_of(each)["lost"] + sums_of(each)["held"]),
        best("Fewest jobs failed", lambda each: sums_of(each)["failed"]),
        best("Fewest jobs done twice", lambda each: sums_of(each)["doubled"]),
        best("Shortest idle stop, seconds, median", lambda each: round(statistics.median(each["idle"] or [99]), 2)),
    ]


def chart(results: list[dict[str, Any]]) -> str:
    """SVG: a bar for each peer, with what became of its jobs."""
    there = [result for result in results if result["rounds"]]
    width, left, height = 760, 190, 30
    box, font = f"0 0 {width} {(len(there) + 2) * height}", 'font-family="sans-serif" font-size="13"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" {font}>',
        "<title>What became of the jobs of each system</title>",
        f'<rect width="{width}" height="{(len(there) + 2) * height}" fill="white"/>',
    ]
    for row, result in enumerate(there):
        sums, x, y = sums_of(result), float(left), row * height + 10
        title = escape(result["title"].replace("`", ""))
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{title}</text>')
        for name, colour in COLOURS.items():
            part = (width - left - 20) * sums[name] / max(1, sums["jobs"])
            if part:
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{part:.1f}" height="20" fill="{colour}"/>')
                parts.append(f'<text x="{x + 3:.1f}" y="{y + 15}" fill="white">{sums[name]}</text>')
            x += part
    y, x = len(there) * height + 20, float(left)
    words = {"done": "done once", "doubled": "done twice", "held": "stuck", "waiting": "still waiting"}
    for name, colour in COLOURS.items():
        word = words.get(name, name)
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="{y + 11}">{word}</text>')
        x += 36 + 7.5 * len(word)
    return "\n".join([*parts, "</svg>"]) + "\n"
