"""The filtered list as CSV or JSON, streamed: rows are read in pieces, each by an index where the last one ended.

No cursor stays open between two pieces: on SQLite an open one would keep workers from storing their reports for as long
as a slow client takes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from django.db.models import Q
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from graceful.admin.change_list import ReportChangeList
from graceful.core import report_json
from graceful.core.text import one_line
from graceful.models import ShutdownReport
from graceful.reports.rows import record_of

COLUMNS = (
    "id",
    "happened_at",
    "worker",
    "hostname",
    "pid",
    "release",
    "queues",
    "reason",
    "signal",
    "outcome",
    "exit_code",
    "phase",
    "started_at",
    "requested_at",
    "drained_at",
    "ended_at",
    "drain_seconds",
    "hooks_seconds",
    "total_seconds",
    "grace_period",
    "jobs_finished",
    "jobs_failed",
    "hooks_ok",
    "hooks_total",
    "notes",
    "recycled",
    "peak_bytes",
    "horse_peak_bytes",
)
ROWS_AT_ONCE = 500
RECORDS_AT_ONCE = 50
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet takes for a formula."""


def exported(change_list: ReportChangeList, form: str) -> StreamingHttpResponse:
    """All reports that the list would show on its pages, the newest first.

    Args:
        change_list: the list, filtered.
        form: ``csv``, or ``json`` for a list of reports as ``shutdown_report --format json`` prints them.
    """
    lines, kind = {"csv": (_csv, "text/csv; charset=utf-8"), "json": (_json, "application/json")}[form]
    response = StreamingHttpResponse(lines(change_list), content_type=kind)
    response["Content-Disposition"] = content_disposition_header(True, f"shutdowns.{form}") or ""
    response["X-Content-Type-Options"] = "nosniff"
    return response


class _Echo:
    """A file for the writer of ``csv`` that returns what is written."""

    def write(self, text: str) -> str:
        return text


def _csv(change_list: ReportChangeList) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for row in _newest_first(change_list, ROWS_AT_ONCE):
        yield writer.writerow([_cell(getattr(row, column)) for column in COLUMNS])


def _json(change_list: ReportChangeList) -> Iterator[str]:
    separator = "[\n"
    for row in _newest_first(change_list, RECORDS_AT_ONCE, "hooks", "jobs"):
        yield separator + json.dumps(report_json.plain(record_of(row)))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _newest_first(change_list: ReportChangeList, at_once: int, *related: str) -> Iterator[ShutdownReport]:
    time, key = change_list.time_fields
    rows: Any = change_list.listed.defer(None).prefetch_related(*related).order_by(f"-{time}", f"-{key}")
    found = list(rows[:at_once])
    while found:
        yield from found
        last = found[-1]
        # The first condition is for the index, which the database does not see in the second.
        after = Q(**{f"{time}__lt": last.happened_at}) | Q(**{time: last.happened_at, f"{key}__lt": last.pk})
        found = list(rows.filter(**{f"{time}__lte": last.happened_at}).filter(after)[:at_once])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if not isinstance(value, str):
        return "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
    text = one_line(value)
    return f"'{text}" if value.lstrip(" ").startswith(FORMULA) else text
