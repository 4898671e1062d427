"""Shutdowns as Prometheus metrics, read from the archive when they are asked for.

A worker that is coming to its end is never scraped again, so nothing is counted in the worker; whatever serves the
metrics of the project (as a web process does for ``django_rq.contrib.prometheus``) registers the collector::

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
    """Collector for ``prometheus_client``: the shutdowns of the last period, their failed hooks and stopped jobs.

    Args:
        period: how far back to look.
    """

    def __init__(self, period: timedelta = DAY) -> None:
        self.period = period

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names without values, so that registering asks no database."""
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metrics as they are now; lets ``django.db.DatabaseError`` through."""
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
        met = ReportedJob.objects.filter(report__happened_at__gte=since).order_by()
        for job in met.values("outcome").annotate(number=Count("pk")):
            jobs.add_metric([job["outcome"]], job["number"])
        return shutdowns, slowest, hooks, jobs

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        past = f"in the last {self.period.total_seconds():.0f} seconds"
        labels = ["outcome", "reason"]
        return (
            GaugeMetricFamily("graceful_shutdowns", f"Worker shutdowns {past}", labels=labels),
            GaugeMetricFamily("graceful_shutdown_seconds_max", f"The longest shutdown {past}", labels=labels),
            GaugeMetricFamily("graceful_hooks_failed", f"Exit hooks that failed {past}", labels=["hook", "outcome"]),
            GaugeMetricFamily("graceful_jobs_met", f"Jobs in hand at a shutdown {past}", labels=["outcome"]),
        )
