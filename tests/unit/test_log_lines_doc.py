"""docs/log-lines.md is the list of the log lines, no more and no less."""

from __future__ import annotations

import re

from tests.support import log_lines
from tests.unit.test_architecture_doc import ROOT

TABLE = log_lines.rows(log_lines.PAGE.read_text())


def test_every_log_line_is_in_the_table() -> None:
    """A log line of the code stands in the table; ``python -m tests.support.log_lines`` adds the row."""
    assert sorted(log_lines.collect() - TABLE.keys()) == []


def test_the_table_has_no_other_line() -> None:
    """A row of the table is a log line of the code, with this level and logger."""
    assert sorted(TABLE.keys() - log_lines.collect()) == []


def test_every_line_has_a_meaning() -> None:
    """No row of the table is left without a meaning, and no row is written in a form that is not read."""
    assert [line for line, meaning in TABLE.items() if not meaning] == []
    assert log_lines.PAGE.read_text().count("\n| ") == len(TABLE) + 1


def test_pages_quote_lines_that_exist() -> None:
    """A log line that a page says to look for is one of the table's."""
    quotes = re.findall(r"log: `([^`]+)`", (ROOT / "docs" / "troubleshooting.md").read_text())
    assert quotes
    lines = [each.line for each in TABLE]
    assert [quote for quote in quotes if not any(matches(quote, line) for line in lines)] == []


def matches(quote: str, line: str) -> bool:
    """Whether a quote with ``...`` for what varies can be of that line."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\s*\.\.\.\s*", quote))
    return re.search(pattern, line) is not None
