"""Rows for the benchmark of the admin: reports with five hooks each, from the newest backwards.

A report every 90 s from 40 hosts, the newest 2,000 of them a deploy within one minute; 2 % with a failed hook, 0.1 %
killed, a third with a job; the oldest 25,000 of a million are of a host that is no more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, models, transaction

from graceful.models import ShutdownReport
from graceful.reports.rows import rows_of
from tests.db.samples import a_clean_report

BATCH = 10_000
DEPLOY = 2_000
HOOKS = ("shop.hooks.flush", "shop.hooks.leave", "shop.hooks.close_pool", "shop.hooks.sentry", "shop.hooks.counters")
QUEUES = tuple(f"queue-{number}" for number in range(20))


def fill(begin: int, end: int) -> None:
    """Add the reports ``id-<begin>`` to ``id-<end - 1>``; the larger the number, the older."""
    newest = ShutdownReport.objects.filter(pk="id-0").values_list("happened_at", flat=True).first()
    now = newest or datetime.now(UTC).replace(microsecond=0)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA journal_mode = MEMORY")
            cursor.execute("PRAGMA cache_size = -400000")
    for start in range(begin, end, BATCH):
        _add(range(start, min(start + BATCH, end)), now)
        print(f"\r{start + BATCH:>9} reports", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _add(numbers: range, now: datetime) -> None:
    reports, hooks, jobs, keywords = [], [], [], []
    for number in numbers:
        report_id, host = f"id-{number}", f"web-{number % 40}" if number < 975_000 else "retired-1"
        ago = number * 60 / DEPLOY if number < DEPLOY else 3600 + 90 * (number - DEPLOY)
        happened_at = connection.ops.adapt_datetimefield_value(now - timedelta(seconds=ago))
        outcome = "killed" if number % 1000 == 7 else "hooks_failed" if number % 50 == 3 else "clean"
        queues = ("default", QUEUES[number % 20])
        release = "the-deploy" if number < DEPLOY else f"2026.{number // 2000}"
        worker = f"{host}.{number % 20_000}"
        reports.append((report_id, happened_at, worker, host, release, json.dumps(queues), outcome))
        failed = HOOKS[number % 5] if outcome == "hooks_failed" else None
        hooks += [
            (report_id, place, name, "failed" if name == failed else "ok", 0.1) for place, name in enumerate(HOOKS)
        ]
        if number % 3 == 0:
            jobs.append((report_id, 0, f"job-{number}"))
        keywords += [(report_id, "queue", name, happened_at, outcome) for name in queues]
        if failed:
            keywords.append((report_id, "failed_hook", failed, happened_at, outcome))
    row = rows_of(a_clean_report())
    with transaction.atomic():
        _insert(row.report, ("id", "happened_at", "worker", "hostname", "release", "queues", "outcome"), reports)
        _insert(row.hooks[0], ("report_id", "place", "name", "outcome", "seconds"), hooks)
        _insert(row.jobs[0], ("report_id", "place", "job_id"), jobs)
        _insert(row.keywords[0], ("report_id", "kind", "value", "happened_at", "outcome"), keywords)


def _insert(template: models.Model, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows that differ from a template in some columns, without the cost of a model for each."""
    fields = [field for field in template._meta.concrete_fields if not isinstance(field, models.AutoField)]
    same = {
        field.column: field.get_db_prep_save(getattr(template, field.attname), connection)
        for field in fields
        if field.column not in columns
    }
    names = [*columns, *same]
    sql = f"INSERT INTO {template._meta.db_table} ({', '.join(map(connection.ops.quote_name, names))}) VALUES "
    values = tuple(same.values())
    with connection.cursor() as cursor:
        cursor.executemany(sql + f"({', '.join(['%s'] * len(names))})", [(*row, *values) for row in rows])


def reports_there() -> int:
    """How many have been filled in; not counted row by row."""
    low, high = 0, 10_000_000
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if ShutdownReport.objects.filter(pk=f"id-{middle}").exists() else (low, middle)
    return low
