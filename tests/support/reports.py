"""Reading the shutdown report of a worker that a test started."""

from __future__ import annotations

import redis

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import JOURNAL_KEY
from tests.support.processes import WorkerProcess


def report_of(connection: redis.Redis, worker: WorkerProcess) -> ShutdownReport:
    """The report of a worker whose database has no tables, so that it stayed in the journal."""
    reports = [report_json.load(text) for text in connection.hvals(JOURNAL_KEY)]
    found = [report for report in reports if report.worker == worker.name]
    assert len(found) == 1, f"{len(found)} reports of {worker!r}; its output:\n{worker.output}"
    return found[0]
