"""What a million reports leave in the roll-ups, and shutdowns that advice is drawn from; for ``admin_million``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DAYS, RELEASES, HOOKS = 90, 5, 20
NEWEST = 6_000
"""Reports of the last days that were asked for by a signal, so that advice looks at as many as it ever does."""


def fill_trends() -> None:
    """Roll-ups of 90 days, 5 releases a day with 4 outcomes, 20 hooks with 2; and the newest reports."""
    from graceful.core.histogram import BOUNDS
    from graceful.models import HookRollup, Release, ShutdownRollup

    histogram = [1000 - 50 * index for index in range(len(BOUNDS) + 1)]
    today = datetime.now(UTC).date()
    shutdowns, hooks, releases = [], [], []
    for ago in range(DAYS):
        day = today - timedelta(days=ago)
        for release in range(RELEASES):
            label = f"{day}-{release}"
            releases.append(Release(label=label, started_at=datetime.now(UTC) - timedelta(days=ago, minutes=release)))
            for outcome, count in (("clean", 2100), ("interrupted", 90), ("hooks_failed", 30), ("killed", 2)):
                row = ShutdownRollup(day=day, release=label, outcome=outcome, reason="signal", count=count)
                row.drain_histogram = row.hooks_histogram = row.total_histogram = histogram
                shutdowns.append(row)
        for hook in range(HOOKS):
            for outcome, count in (("ok", 11_000), ("timed_out", 100 - 5 * hook)):
                hooks.append(
                    HookRollup(
                        day=day,
                        name=f"shop.hooks.number_{hook}",
                        outcome=outcome,
                        count=count,
                        seconds=count / 2,
                        histogram=histogram,
                    )
                )
    Release.objects.bulk_create(releases, batch_size=500)
    ShutdownRollup.objects.bulk_create(shutdowns, batch_size=500)
    HookRollup.objects.bulk_create(hooks, batch_size=500)


def fill_newest() -> None:
    """Shutdowns of the last four weeks, each with a job in flight; every tenth job was interrupted."""
    from graceful.models import ReportedJob, ShutdownReport
    from graceful.reports.rows import rows_of
    from tests.db.samples import a_clean_report

    row = rows_of(a_clean_report()).report
    template = {field.attname: getattr(row, field.attname) for field in ShutdownReport._meta.concrete_fields}
    now = datetime.now(UTC)
    reports, jobs = [], []
    for number in range(NEWEST):
        at = now - timedelta(minutes=6 * number)
        changes = {"id": f"new-{number}", "happened_at": at, "requested_at": at, "rolled_up": True}
        reports.append(ShutdownReport(**{**template, **changes}))
        job = ReportedJob(report_id=f"new-{number}", place=0, job_id=f"new-{number}", function="shop.f", queue="q")
        job.outcome, job.interruptions, job.seconds = ("killed", 1, 20.0) if number % 10 == 0 else ("finished", 0, 2.0)
        job.started_at = at - timedelta(seconds=30)
        jobs.append(job)
    ShutdownReport.objects.bulk_create(reports, batch_size=500)
    ReportedJob.objects.bulk_create(jobs, batch_size=500)
