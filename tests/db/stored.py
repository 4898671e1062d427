"""Reports stored at once, as the archive would over time."""

from __future__ import annotations

from graceful.core.records import ShutdownReport
from graceful.models import ReportedHook, ReportedJob
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.rows import rows_of


def save(*reports: ShutdownReport) -> None:
    """Store reports over the test's own connection; they are in no roll-up yet."""
    rows = [rows_of(report) for report in reports]
    ArchivedReport.objects.bulk_create([each.report for each in rows])
    ReportedHook.objects.bulk_create([hook for each in rows for hook in each.hooks])
    ReportedJob.objects.bulk_create([job for each in rows for job in each.jobs])
