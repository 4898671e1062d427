"""Shutdowns as Prometheus metrics, read from the archive at each scrape.

A worker that shuts down is never scraped again, so nothing is counted in the worker; the process that serves the
project's metrics (for ``django_rq.contrib.prometheus`` a web process) registers the collector::

    from prometheus_client import REGISTRY
    from graceful.metrics import ShutdownCollector

    REGISTRY.register(ShutdownCollector())
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Count, Max
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily

from graceful.core.phases import HookOutcome
from graceful.models import ReportedHook, ReportedJob, ShutdownReport

DAY = timedelta(days=1)


class ShutdownCollector:
    """Collector for ``prometheus_client``: shutdowns of the last period, failed hooks, and jobs in flight.

    Args:
        period: how far back to look.
    """

    def __init__(self, period: timedelta = DAY) -> None:
        self.period = period

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names without values, so that registering does not query the database."""
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The current metrics.

        Raises:
            django.db.DatabaseError: the database is unreachable.
        """
        since = timezone.now() - self.period
        shutdowns, slowest, hooks, jobs = self._families()
        reports = ShutdownReport.objects.filter(happened_at__gte=since).order_by()
        for row in reports.values("outcome", "reason").annotate(number=Count("id"), slowest=Max("total_seconds")):
            labels = [row["outcome"] or "", row["reason"] or ""]
            shutdowns.add_metric(labels, row["number"])
            if row["slowest"] is not None:
                slowest.add_metric(labels, row["slowest"])
        failed = ReportedHook.objects.filter(
            report__happened_at__gte=since, outcome__in=[HookOutcome.FAILED, HookOutcome.TIMED_OUT]
        ).order_by()
        for hook in failed.values("name", "outcome").annotate(number=Count("pk")):
            hooks.add_metric([hook["name"], hook["outcome"]], hook["number"])
        in_flight = ReportedJob.objects.filter(report__happened_at__gte=since).order_by()
        for job in in_flight.values("outcome").annotate(number=Count("pk")):
            jobs.add_metric([job["outcome"]], job["number"])
        return shutdowns, slowest, hooks, jobs

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        past = f"in the last {self.period.total_seconds():.0f} seconds"
        labels = ["outcome", "reason"]
        return (
            GaugeMetricFamily("graceful_shutdowns", f"Worker shutdowns {past}", labels=labels),
            GaugeMetricFamily("graceful_shutdown_seconds_max", f"The longest shutdown {past}", labels=labels),
            GaugeMetricFamily("graceful_hooks_failed", f"Exit hooks that failed {past}", labels=["hook", "outcome"]),
            GaugeMetricFamily("graceful_jobs_met", f"Jobs in flight at a shutdown {past}", labels=["outcome"]),
        )
