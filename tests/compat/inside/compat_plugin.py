"""pytest plugin: sets Django up before a suite is imported, and writes down how each test went.

It runs in a venv of its own, beside a package ``tests`` that is not ours; so it is loaded by its name (``-p``), and
imports nothing of ours but the package itself.
"""

import json
import os
from pathlib import Path

import django
import pytest

IN_XDIST = "PYTEST_XDIST_WORKER" in os.environ
ports = os.environ["COMPAT_PORTS"].split(",")
# xdist names its processes gw0, gw1, ...; one that crashed is replaced under a new number.
number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["COMPAT_PORT"] = ports[number % len(ports)]
django.setup()


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line a phase of a test; in the controller only, which hears of everything, a crash included."""
    if IN_XDIST:
        return
    line = {
        "test": report.nodeid,
        "outcome": report.outcome,
        "seconds": report.duration,
        "text": report.longreprtext if report.failed else "",
    }
    with Path(os.environ["COMPAT_RESULTS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
