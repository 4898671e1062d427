"""The admin's pages over a million reports: seconds for each page, and the queries behind it.

Run as a script, with the database in ``DATABASE_URL`` (its tables are made, filled and kept)::

    DATABASE_URL=sqlite:////tmp/million.sqlite3 python -m tests.benchmarks.admin_million [reports]
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta

import django

MILLION = 1_000_000
BATCH = 5_000
RUNS = 3
LIST = "/admin/graceful/shutdownreport/"
PAGES = (
    ("the list", ""),
    ("the last page of it", "?p=200"),
    ("outcome clean (98 %)", "?outcome__exact=clean"),
    ("outcome killed (0.1 %)", "?outcome__exact=killed"),
    ("outcome crashed (none)", "?outcome__exact=crashed"),
    ("killed by SIGINT (none)", "?outcome__exact=killed&signal__exact=SIGINT"),
    ("a year", "?happened_at__year=2024"),
    ("a month", "?happened_at__year=2024&happened_at__month=5"),
    ("a day, killed", "?happened_at__year=2024&happened_at__month=5&happened_at__day=17&outcome__exact=killed"),
    ("search: one worker", "?q=web-7.123"),
    ("search: a host's workers", "?q=web-7"),
    ("search: every worker", "?q=web"),
    ("search: a job", "?q=job-777777"),
    ("search: nothing", "?q=nothing-like-it"),
    ("oldest first", "?o=0"),
    ("last report", "last/"),
    ("one report", "id-1000/change/"),
    ("one report as JSON", "id-1000/export/"),
)


def fill(count: int) -> None:
    """Reports every minute and a half, from 40 hosts in 500 releases; each with a hook, some with a job."""
    from django.db import connection, transaction

    from graceful.models import ReportedHook, ReportedJob, ShutdownReport
    from graceful.reports.rows import rows_of
    from tests.db.samples import a_clean_report

    row = rows_of(a_clean_report()).report
    template = {field.attname: getattr(row, field.attname) for field in ShutdownReport._meta.concrete_fields}
    first = datetime(2023, 1, 1, tzinfo=UTC)
    for start in range(0, count, BATCH):
        reports, hooks, jobs = [], [], []
        for number in range(start, min(start + BATCH, count)):
            host = f"web-{number % 40}"
            changes = {
                "id": f"id-{number}",
                "happened_at": first + timedelta(seconds=90 * number),
                "hostname": host,
                "worker": f"{host}.{number % 20_000}",
                "release": f"2023.{number // max(1, count // 500)}",
                "outcome": "killed" if number % 1000 == 0 else "hooks_failed" if number % 50 == 0 else "clean",
            }
            reports.append(ShutdownReport(**{**template, **changes}))
            hooks.append(ReportedHook(report_id=f"id-{number}", place=0, name="flush", outcome="ok", seconds=0.1))
            if number % 3 == 0:
                job = ReportedJob(report_id=f"id-{number}", place=0, job_id=f"job-{number}", function="f", queue="q")
                job.outcome, job.interruptions = "finished", 0
                jobs.append(job)
        with transaction.atomic():
            ShutdownReport.objects.bulk_create(reports)
            ReportedHook.objects.bulk_create(hooks)
            ReportedJob.objects.bulk_create(jobs)
        print(f"\r{start + len(reports):>9} reports", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, override_settings

    from graceful.models import ShutdownReport
    from graceful.reports import sources

    count = int(sys.argv[1]) if len(sys.argv) > 1 else MILLION
    call_command("migrate", verbosity=0)
    if not ShutdownReport.objects.exists():
        fill(count)
    sources.page_archiver.paused_until = float("inf")
    user, _ = User.objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    print(f"{'page':<26}{'seconds':>9}{'queries':>9}{'slowest':>9}")
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        for name, query in PAGES:
            best, queries, slowest = float("inf"), 0, 0.0
            for _run in range(RUNS):
                with CaptureQueriesContext(connection) as captured:
                    started = time.perf_counter()
                    response = client.get(LIST + query)
                    took = time.perf_counter() - started
                assert response.status_code == (302 if query == "last/" else 200), (name, response.status_code)
                if took < best:
                    best = took
                    queries = len(captured)
                    slowest = max(float(each["time"]) for each in captured.captured_queries)
            print(f"{name:<26}{best:>9.3f}{queries:>9}{slowest:>9.3f}", flush=True)


if __name__ == "__main__":
    main()
