"""The reference pages have what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from django.dispatch import Signal

from graceful import signals
from graceful.worker.shutdown import os_signals

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


def test_redis_keys() -> None:
    """Every key has a row, and no other."""
    used = set(re.findall(r'"graceful:([a-z:]+)', CODE)) - {"none"}  # Stands where a script has no such key.
    assert in_first_column("redis-keys.md", r"`graceful:([a-z:]+)") == used


def test_exit_codes() -> None:
    """Every exit code has a row, and no other."""
    assert in_exit_codes() == set(re.findall(r"\bEX_[A-Z]+\b", CODE))


def in_exit_codes() -> set[str]:
    return set(re.findall(r"^\| \d+ \| (EX_[A-Z]+) \|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE))


def test_os_signals() -> None:
    """Every signal that a worker handles has a row; SIGHUP is the one that it leaves alone."""
    handled = {*os_signals.STOP_SIGNALS, os_signals.QUIET_SIGNAL, os_signals.STACKS_SIGNAL}
    assert in_first_column("os-signals.md", r"SIG[A-Z0-9]+") == {signum.name for signum in handled} | {"SIGHUP"}


def test_django_signals() -> None:
    """Every Django signal has a row, and no other."""
    sent = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert in_first_column("signals.md", r"`(\w+)`") == sent


def test_fields_of_a_deploy() -> None:
    """Every field of the schema has a row, but the two that all answers have."""
    fields = set(json.loads((DOCS / "deploy.schema.json").read_text())["$defs"]["deploy"]["properties"])
    rows = in_first_column("json.md", r"`(\w+)`") & fields
    assert fields - rows == {"version", "kind"}
