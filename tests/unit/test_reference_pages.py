"""The reference pages have what the code has: settings, checks and commands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "graceful").rglob("*.py")))


def in_first_column(page: str, pattern: str) -> set[str]:
    rows = [line.split(" | ")[0] for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(pattern, row)}


def test_settings() -> None:
    """Every setting that is read has a row, and no other."""
    read = set(re.findall(r'"(GRACEFUL_[A-Z_]+)"', CODE))
    read -= {"GRACEFUL_POOL_WORKERS", "GRACEFUL_AUTORELOAD_CHILD"}  # What a process tells the one that it starts.
    assert in_first_column("settings.md", r"GRACEFUL_[A-Z_]+") == read


def test_checks() -> None:
    """Every check that is made has a row, and no other."""
    assert in_first_column("checks.md", r"graceful\.([EW]\d{3})") == set(re.findall(r"\b([EW]0\d\d)\b", CODE))


def test_commands() -> None:
    """Every command has a row, and no other."""
    made = {path.stem for path in (ROOT / "graceful" / "management" / "commands").glob("[a-z]*.py")}
    assert in_first_column("commands.md", r"manage\.py (\w+)") == made
