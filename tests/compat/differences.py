"""The list of tests that our classes contradict, each with the documented behaviour that makes them."""

from __future__ import annotations

import tomllib
from pathlib import Path

LIST = Path(__file__).with_name("differences.toml")


def of(version: str) -> dict[str, str]:
    """Test id to reason, for one version of RQ."""
    listed: dict[str, str] = {}
    for entry in tomllib.loads(LIST.read_text())["difference"]:
        for test in entry["tests"]:
            if version in entry["rq"]:
                listed[test] = entry["reason"]
    return listed
