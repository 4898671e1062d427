"""The admin's pages over a million reports with five million hooks: server time at p95, and the queries behind it.

``make bench-admin``, or ``DATABASE_URL=postgres://... make bench-admin``. Without DATABASE_URL, in a file of SQLite of
3 GB, which is kept for the next run: ``BENCH_DIR``, or a directory of the system's temporary one. Pages are measured
at 10,000 reports and at the full number; the last column is how much slower they have become.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MILLION = 1_000_000
SMALL = 10_000
RUNS = 20
LIMIT_SECONDS = 0.150
ADMIN = "/admin/graceful/"
LIST = f"{ADMIN}shutdownreport/"
# Another page is one more line: its name and its address.
PAGES: list[tuple[str, str]] = [
    ("the index", "/admin/"),
    ("the list", LIST),
    ("the last page of it", f"{LIST}?p=200"),
    ("oldest first", f"{LIST}?o=0"),
    ("a month", f"{LIST}?happened_at__year={{year}}&happened_at__month={{month}}"),
    ("outcome clean (98 %)", f"{LIST}?outcome__exact=clean"),
    ("outcome killed (0.1 %)", f"{LIST}?outcome__exact=killed"),
    ("outcome crashed (none)", f"{LIST}?outcome__exact=crashed"),
    ("killed by SIGINT (none)", f"{LIST}?outcome__exact=killed&signal__exact=SIGINT"),
    ("reason signal (all)", f"{LIST}?reason__exact=signal"),
    ("release", f"{LIST}?release=the-deploy"),
    ("host", f"{LIST}?hostname=web-7"),
    ("a host that is no more", f"{LIST}?hostname=retired-1"),
    ("queue default (all)", f"{LIST}?queue=default"),
    ("queue (5 %)", f"{LIST}?queue=queue-7"),
    ("queue default, killed", f"{LIST}?queue=default&outcome__exact=killed"),
    ("queue (none)", f"{LIST}?queue=nothing"),
    ("failed hook (0.4 %)", f"{LIST}?failed_hook=shop.hooks.sentry"),
    ("failed hook of a queue", f"{LIST}?failed_hook=shop.hooks.sentry&queue=queue-3"),
    ("search: one worker", f"{LIST}?q=web-7.127"),
    ("search: a host's workers", f"{LIST}?q=web-7"),
    ("search: of a host that is no more", f"{LIST}?q=retired"),
    ("search: every worker", f"{LIST}?q=web"),
    ("search: a job", f"{LIST}?q=job-9999"),
    ("search: nothing", f"{LIST}?q=nothing-like-it"),
    ("search: in a queue, killed", f"{LIST}?q=web-7&queue=queue-7&outcome__exact=killed"),
    ("last report", f"{LIST}last/"),
    ("one report", f"{LIST}id-1000/change/"),
    ("one report as JSON", f"{LIST}id-1000/export/"),
    ("CSV of all, first rows", f"{LIST}export.csv"),
    ("CSV of a queue, first rows", f"{LIST}export.csv?queue=queue-7"),
    ("JSON of all, first rows", f"{LIST}export.json"),
    ("JSON of a host, first rows", f"{LIST}export.json?q=web-7"),
    ("trends, 30 days", f"{ADMIN}shutdownrollup/"),
    ("trends, 90 days", f"{ADMIN}shutdownrollup/?days=90"),
    ("trends, a hook in 90 days", f"{ADMIN}shutdownrollup/?days=90&hook=shop.hooks.number_3"),
]


@dataclass(frozen=True, slots=True)
class Measured:
    """One page: median and 95th percentile of its server time in seconds, and its queries."""

    p50: float
    p95: float
    queries: int
    slowest: float


def measure(client: Any, address: str) -> Measured:
    """A page, requested ``RUNS`` times after one that warms the caches."""
    from django.db import connection, reset_queries
    from django.test.utils import CaptureQueriesContext

    took: list[float] = []
    queries, slowest = 0, 0.0
    for run in range(RUNS + 1):
        reset_queries()
        with CaptureQueriesContext(connection) as captured:
            started = time.perf_counter()
            response = client.get(address)
            assert response.status_code in (200, 302), (address, response.status_code)
            if response.streaming:
                rows = iter(response.streaming_content)
                next(rows), next(rows)  # The head, and the first row.
            seconds = time.perf_counter() - started
            response.close()
        if run:
            took.append(seconds)
            queries = max(queries, len(captured))
            slowest = max([slowest, *(float(each["time"]) for each in captured.captured_queries)])
    took.sort()
    return Measured(statistics.median(took), took[math.ceil(0.95 * len(took)) - 1], queries, slowest)


def measure_all() -> dict[str, Measured]:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client

    from graceful.models import ShutdownReport

    user, _ = User.objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    newest = ShutdownReport.objects.values_list("happened_at", flat=True)[0]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    return {name: measure(client, page.format(year=newest.year, month=newest.month)) for name, page in PAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="?", type=int, default=MILLION, help=f"default: {MILLION}")
    count = parser.parse_args().reports
    if "DATABASE_URL" not in os.environ:
        folder = Path(os.environ.get("BENCH_DIR", f"{tempfile.gettempdir()}/graceful-bench"))
        folder.mkdir(exist_ok=True)
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'admin.sqlite3'}"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.core.management import call_command

    from graceful.models import HookRollup
    from graceful.reports import sources
    from tests.benchmarks.admin_rows import fill, reports_there
    from tests.benchmarks.fill_trends import fill_trends

    call_command("migrate", verbosity=0)
    if not HookRollup.objects.exists():
        fill_trends()
    sources.page_archiver.paused_until = float("inf")
    there = reports_there()
    small: dict[str, Measured] = {}
    if there <= SMALL:
        fill(there, SMALL)
        small = measure_all()
        there = SMALL
    if there < count:
        fill(there, count)
    print(f"{'page':<36}{'p50 ms':>8}{'p95 ms':>8}{'queries':>9}{'slowest':>9}{'growth':>8}")
    slow = 0
    for name, each in measure_all().items():
        growth = f"{each.p95 / small[name].p95:.1f}x" if name in small else "-"
        slow += each.p95 > LIMIT_SECONDS
        mark = "  too slow" if each.p95 > LIMIT_SECONDS else ""
        print(
            f"{name:<36}{each.p50 * 1000:>8.0f}{each.p95 * 1000:>8.0f}{each.queries:>9}{each.slowest * 1000:>9.0f}"
            f"{growth:>8}{mark}",
            flush=True,
        )
    raise SystemExit(f"{slow} pages took more than {LIMIT_SECONDS * 1000:.0f} ms" if slow else 0)


if __name__ == "__main__":
    main()
