"""The Grafana dashboard, the alert rules and the page about metrics name what the collector exports, nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from graceful.core.phases import HookOutcome, Outcome
from graceful.metrics import STATES
from tests.support.metrics_page import page

DOCS = Path(__file__).resolve().parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((DOCS / "alerts.yml").read_text())
METRIC = re.compile(r"\bgraceful_\w+")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def exported() -> set[str]:
    """The names of all series."""
    families = text_string_to_metric_families(page())
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return panels + rules


@pytest.mark.parametrize("expression", expressions())
def test_expressions_name_metrics_that_are_exported(expression: str) -> None:
    """Every metric of a panel and of an alert is one that the collector exports; values of labels are words of ours."""
    named = set(METRIC.findall(expression))
    assert named
    assert named <= exported()
    words = {"outcome": {*Outcome, *HookOutcome}, "state": set(STATES)}
    for label, value in re.findall(r'(\w+)!?=~?"([^"$]+)"', expression):
        assert set(value.split("|")) <= words[label]


def test_values_are_taken_once_however_many_processes_export_them() -> None:
    """Each web process exports the same values: the maximum over them is taken before anything is added up."""
    for expression in expressions():
        assert re.search(r"\bmax\b", expression), expression


def test_every_metric_is_documented() -> None:
    """``docs/prometheus.md`` has every series, and no other."""
    text = (DOCS / "prometheus.md").read_text()
    documented = set(re.findall(r"^\| `(graceful_\w+)", text, re.MULTILINE))
    families: Any = text_string_to_metric_families(page())
    assert documented == {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_panels_do_not_overlap() -> None:
    """Each panel has a place of its own on the grid, which is 24 wide, and an id of its own."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
