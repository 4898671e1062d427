"""The books of the comparison: what a ledger says of each job, for every system alike."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from tests.compare.books import Line, balance, read
from tests.compare.report import OUTPUT, PAGE, chart, table, with_results

LEDGER = """\
start a 1 10 1.0
end a 1 10 2.0
start b 1 10 2.5
hook - 1 9 3.5
start b 2 20 7.0
end b 2 20 8.0
start c 2 20 8.5
end c 2 20 9.0
start c 2 21 9.5
end c 2 21 9.9
start d 2"""


def test_each_end() -> None:
    """Done once, cut off and done later, done twice, and the four ways not to be done."""
    states = {"e": "failed", "f": "held", "g": "queued", "h": "gone"}
    books = balance("abcefgh", read(LEDGER), states, stopped_at=3.0)
    assert (books.done, books.doubled) == (["a", "b"], ["c"])
    assert (books.failed, books.held, books.waiting, books.lost) == (["e"], ["f"], ["g"], ["h"])
    assert books.again == {"b": 4.0}
    assert books.hooks == 1


def test_a_job_that_never_runs_again() -> None:
    """A job that was cut off and has no further start is one; a line that was cut off itself is none."""
    books = balance(["b"], [Line("start", "b", "1", 10, 2.5)], {"b": "gone"}, stopped_at=3.0)
    assert (books.again, books.lost, books.hooks) == ({"b": None}, ["b"], 0)
    assert [line.job for line in read(LEDGER)].count("d") == 0


def result(title: str, **books: object) -> dict[str, object]:
    counts = {name: [] for name in ("done", "doubled", "failed", "held", "lost", "waiting")}
    one = {
        "fault": "deploy",
        "jobs": 3,
        "stop": 2.0,
        "killed": False,
        "books": {**counts, "again": {}, "hooks": 1, **books},
    }
    return {"title": title, "version": "1", "known": "the log", "idle": [0.5], "rounds": [one]}


def test_the_table_says_who_is_best() -> None:
    """By the figures, whoever it is; a system that cannot be had has a row that says so."""
    text = table(
        [
            result("ours", done=["a", "b"], lost=["c"]),
            result("theirs <&>", done=["a", "b", "c"]),
            {"title": "absent", "not_available": "no package", "rounds": [], "idle": []},
        ]
    )
    assert "- Fewest jobs lost or stuck: theirs <&> (0)" in text
    assert "| absent | not available here: no package |" in text
    picture = ElementTree.fromstring(chart([result("theirs <&>", done=["a"], lost=["c"])]))
    assert "theirs <&>" in [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]


def test_the_page_has_what_was_measured() -> None:
    """Table and chart of docs/comparison.md are those of results.json; ``make compare`` writes all three."""
    results = json.loads((OUTPUT / "results.json").read_text())
    assert with_results(PAGE.read_text(), results) == PAGE.read_text()
    assert (OUTPUT / "chart.svg").read_text() == chart(results)
