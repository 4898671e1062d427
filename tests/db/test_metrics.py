"""Shutdowns as Prometheus metrics."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from graceful.core.phases import Outcome, Reason
from graceful.core.records import utc_now
from graceful.metrics import ShutdownCollector
from graceful.reports import archive
from tests.db.samples import a_report

pytestmark = pytest.mark.django_db(transaction=True)


def test_last_days_shutdowns_are_counted_by_outcome() -> None:
    """Metrics count the shutdowns of the last period by outcome and reason, and no older ones."""
    now = utc_now()
    for number, (outcome, age) in enumerate([(Outcome.CLEAN, 1), (Outcome.CLEAN, 2), (Outcome.KILLED, 400)]):
        at = now - timedelta(hours=age)
        report = replace(a_report(), id=f"r{number}", outcome=outcome, reason=Reason.SIGNAL, requested_at=at)
        assert archive.store(report, seconds=5)
    registry = CollectorRegistry()
    registry.register(ShutdownCollector())
    lines = generate_latest(registry).decode().splitlines()
    assert 'graceful_shutdowns{outcome="clean",reason="signal"} 2.0' in lines
    assert not any("killed" in line for line in lines)
    assert any(line.startswith("graceful_hooks_failed{") for line in lines)
    assert any(line.startswith("graceful_jobs_met{") for line in lines)


def test_registering_asks_no_database(django_assert_num_queries: object) -> None:
    """Registering the collector does not query the database."""
    with django_assert_num_queries(0):  # type: ignore[operator]
        CollectorRegistry().register(ShutdownCollector())
