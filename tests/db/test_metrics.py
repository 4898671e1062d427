"""Shutdowns and living workers as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rq import Queue

from graceful import metrics
from graceful.core.histogram import bucket_of, empty
from graceful.core.phases import Phase
from graceful.core.records import ShutdownReport, utc_now
from graceful.metrics import GracefulCollector
from graceful.models import HookRollup, ShutdownRollup
from graceful.reports import sums as sums_module
from graceful.reports.journal import Journal
from graceful.reports.sums import CachedSums
from graceful.worker.cluster.registration import HEARTBEATS_KEY
from tests.db.samples import a_report
from tests.support.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

DAY = date(2026, 3, 1)


def histogram_of(*seconds: float) -> list[int]:
    """The buckets that these durations belong to."""
    counts = empty()
    for each in seconds:
        counts[bucket_of(each)] += 1
    return counts


def a_rollup(day: date = DAY, outcome: str = "clean", reason: str = "signal", *seconds: float) -> ShutdownRollup:
    """A stored roll-up of shutdowns that drained for so long."""
    return ShutdownRollup.objects.create(
        day=day,
        outcome=outcome,
        reason=reason,
        count=len(seconds),
        jobs_interrupted=1,
        drain_seconds=sum(seconds),
        drain_histogram=histogram_of(*seconds),
        total_seconds=sum(seconds),
        total_histogram=histogram_of(*seconds),
    )


def a_hook(name: str = "shop.flush", outcome: str = "ok", day: date = DAY, seconds: float = 0.2) -> HookRollup:
    """A stored roll-up of one run of a hook."""
    return HookRollup.objects.create(
        day=day, name=name, outcome=outcome, count=1, seconds=seconds, histogram=histogram_of(seconds)
    )


def samples(collector: GracefulCollector | None = None) -> dict[str, float]:
    """A scrape: ``name{label="value"}`` to value, as Prometheus's own parser reads it."""
    registry = CollectorRegistry()
    registry.register(collector or GracefulCollector())
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def a_worker(connection: redis.Redis, number: int, beat: bool = True, **changes: Any) -> ShutdownReport:
    """The open journal entry of a worker, and its heartbeat."""
    running: dict[str, Any] = {"outcome": None, "exit_code": None, "ended_at": None, "phase": Phase.RUNNING}
    report = a_report(id=f"id-{number}", **{**running, **changes})
    Journal(connection).write(report)
    if beat:
        connection.zadd(HEARTBEATS_KEY, {report.id: connection.time()[0]})
    return report


def test_counters_add_up_all_days(connection: redis.Redis) -> None:
    """Shutdowns are counted by outcome and reason over all days, hooks by name and outcome, and jobs in all."""
    a_rollup(DAY, "clean", "signal", 0.07, 3.0)
    a_rollup(DAY + timedelta(days=1), "clean", "signal", 700.0)
    a_rollup(DAY, "killed", "killed", 1.0)
    a_hook("shop.flush", "ok"), a_hook("shop.flush", "ok", DAY + timedelta(days=1)), a_hook("shop.flush", "failed")
    found = samples()
    assert found['graceful_shutdowns_total{outcome="clean",reason="signal"}'] == 3
    assert found['graceful_shutdowns_total{outcome="killed",reason="killed"}'] == 1
    assert found["graceful_interrupted_jobs_total"] == 3
    assert found['graceful_hook_runs_total{hook="shop.flush",outcome="ok"}'] == 2
    assert found['graceful_hook_runs_total{hook="shop.flush",outcome="failed"}'] == 1
    assert found['graceful_hook_seconds_count{hook="shop.flush"}'] == 3


def test_histograms_are_cumulative(connection: redis.Redis) -> None:
    """A bucket counts what took at most its bound; the last one has all of them, and the sum is in seconds."""
    a_rollup(DAY, "clean", "signal", 0.07, 3.0, 700.0)
    found = samples()
    buckets = {key: found[f'graceful_shutdown_drain_seconds_bucket{{le="{key}"}}'] for key in ("0.05", "0.1", "5.0")}
    assert buckets == {"0.05": 0, "0.1": 1, "5.0": 2}
    assert found['graceful_shutdown_drain_seconds_bucket{le="+Inf"}'] == 3
    assert found["graceful_shutdown_drain_seconds_count"] == 3
    assert found["graceful_shutdown_drain_seconds_sum"] == pytest.approx(703.07)


def test_what_never_happened_is_zero(connection: redis.Redis) -> None:
    """Every outcome and reason has a counter from the start, so that the first one is an increase."""
    a_hook()
    found = samples()
    assert found['graceful_shutdowns_total{outcome="killed",reason="killed"}'] == 0
    assert found["graceful_interrupted_jobs_total"] == 0
    assert found['graceful_hook_runs_total{hook="shop.flush",outcome="timed_out"}'] == 0


def test_a_second_scrape_reads_only_what_changed(connection: redis.Redis) -> None:
    """Days that have not changed are not read again; one that grew, and one that was folded, are."""
    for number in range(5):
        a_rollup(DAY + timedelta(days=number), "clean", "signal", 1.0)
    collector = GracefulCollector()
    samples(collector)
    with CaptureQueriesContext(
        database,
    ) as queries:
        samples(collector)
    assert not [query for query in queries if "drain_histogram" in query["sql"]]
    last = ShutdownRollup.objects.order_by("day").last()
    assert last is not None
    last.count, last.total_histogram = 3, histogram_of(1.0, 1.0, 1.0)
    last.save()
    assert samples(collector)['graceful_shutdowns_total{outcome="clean",reason="signal"}'] == 7
    ShutdownRollup.objects.filter(day=DAY).update(day=date(1970, 1, 1))
    assert samples(collector)['graceful_shutdowns_total{outcome="clean",reason="signal"}'] == 7
    assert samples(collector)["graceful_shutdown_seconds_count"] == 7


def test_a_day_folded_during_a_scrape_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maintenance folds a day between two queries, nothing is counted twice: a counter must not fall after it."""
    a_rollup(DAY, "clean", "signal", 1.0)
    a_rollup(date(1970, 1, 1), "clean", "signal", 1.0)
    sums = CachedSums()
    assert sums.read().shutdowns == {("clean", "signal"): 2}
    ShutdownRollup.objects.filter(day=date(1970, 1, 1)).update(count=5)  # It has folded another day before.
    counts, calls = sums_module._counts, []

    def counts_then_fold(alias: str) -> Any:
        found = counts(alias)
        if not calls:
            ShutdownRollup.objects.filter(day=DAY).delete()
            ShutdownRollup.objects.filter(day=date(1970, 1, 1)).update(count=6)
        calls.append(found)
        return found

    monkeypatch.setattr(sums_module, "_counts", counts_then_fold)
    assert sums.read().shutdowns == {("clean", "signal"): 6}


def test_workers_are_counted_by_state_and_release(connection: redis.Redis) -> None:
    """Living workers count by phase, quiet ones and those that missed their heartbeat apart, by release."""
    a_worker(connection, 1, release="2")
    a_worker(connection, 2, release="2", quiet=True)
    a_worker(connection, 3, release="1", phase=Phase.DRAINING, quiet=True)
    a_worker(connection, 4, release="1", phase=Phase.HOOKS)
    a_worker(connection, 5, release="1", beat=False)
    found = samples()
    assert found['graceful_workers{release="2",state="running"}'] == 1
    assert found['graceful_workers{release="2",state="quiet"}'] == 1
    assert found['graceful_workers{release="1",state="draining"}'] == 1
    assert found['graceful_workers{release="1",state="hooks"}'] == 1
    assert found['graceful_workers{release="1",state="silent"}'] == 1
    assert found['graceful_workers{release="1",state="running"}'] == 0


def test_labels_are_bounded(connection: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some releases and hooks, the older ones are added up under one label; hostile names are escaped."""
    monkeypatch.setattr(metrics, "MOST_RELEASES", 2)
    monkeypatch.setattr(metrics, "MOST_HOOKS", 2)
    for number in range(4):
        a_worker(connection, number, release=f"r{number}", started_at=utc_now() + timedelta(seconds=number))
        a_hook(f"hook{number}", day=DAY + timedelta(days=number))
    a_worker(connection, 9, release='\x1b[31m"\n\ud800', started_at=utc_now() + timedelta(hours=1))
    found = samples()
    assert {key for key in found if key.startswith("graceful_workers") and "running" in key} == {
        'graceful_workers{release="r3",state="running"}',
        'graceful_workers{release="(other)",state="running"}',
        'graceful_workers{release="\\x1b[31m"\\n?",state="running"}',
    }
    assert found['graceful_workers{release="(other)",state="running"}'] == 3
    assert found['graceful_hook_runs_total{hook="(other)",outcome="ok"}'] == 2
    assert found['graceful_hook_seconds_count{hook="hook3"}'] == 1
    assert 'graceful_hook_seconds_count{hook="hook0"}' not in found


def test_reports_that_wait_for_the_database_are_seen(connection: redis.Redis) -> None:
    """The age of the oldest report that waits in Redis grows until it is archived."""
    assert samples()["graceful_oldest_unarchived_report_age_seconds"] == 0
    Journal(connection).write(a_report()._replace(id="old", ended_at=utc_now() - timedelta(hours=1)))
    Journal(connection).write(a_report()._replace(id="new", ended_at=utc_now()))
    found = samples()
    assert found["graceful_unarchived_reports"] == 2
    assert 3600 <= found["graceful_oldest_unarchived_report_age_seconds"] < 3660


def test_redis_away_leaves_the_database(own_valkey: Server) -> None:
    """Where Redis is unreachable a scrape says so and still counts shutdowns; workers are not told as none."""
    a_rollup(DAY, "clean", "signal", 1.0)
    own_valkey.stop()
    found = samples()
    assert found['graceful_up{source="redis"}'] == 0
    assert found['graceful_up{source="database"}'] == 1
    assert found['graceful_shutdowns_total{outcome="clean",reason="signal"}'] == 1
    assert not [key for key in found if "workers" in key or "unarchived" in key]


def test_database_away_leaves_redis(connection: redis.Redis, broken_database: None) -> None:
    """Where the database is unreachable a scrape says so and still shows the workers; no counter falls to zero."""
    a_worker(connection, 1, release="1")
    found = samples()
    assert found['graceful_up{source="database"}'] == 0
    assert found['graceful_up{source="redis"}'] == 1
    assert found['graceful_workers{release="1",state="running"}'] == 1
    assert not [key for key in found if "shutdowns" in key]


@pytest.fixture
def broken_database() -> Iterator[None]:
    """A database whose tables are missing."""
    with database.schema_editor() as editor:
        editor.alter_db_table(ShutdownRollup, "graceful_shutdownrollup", "elsewhere")
    yield
    with database.schema_editor() as editor:
        editor.alter_db_table(ShutdownRollup, "elsewhere", "graceful_shutdownrollup")


def test_a_scrape_touches_no_job(connection: redis.Redis, queues: dict[str, Queue]) -> None:
    """A scrape changes nothing in Redis: a dead worker's job stays as it is, and none is loaded."""
    a_worker(connection, 1, beat=False)
    job = queues["default"].enqueue("shop.jobs.missing")
    connection.hset(f"rq:job:{job.id}", mapping={"data": b"not a pickle", "status": "started"})
    connection.zadd("rq:wip:default", {f"{job.id}:execution": 1})
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    samples()
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before


def test_registering_asks_nobody(django_assert_num_queries: Any) -> None:
    """Registering the collector queries neither the database nor Redis."""
    with django_assert_num_queries(0):
        CollectorRegistry().register(GracefulCollector())


def test_the_view_lets_staff_and_the_scraper_in(connection: redis.Redis, client: Client) -> None:
    """The view answers staff and whoever has django-rq's token, and nobody else."""
    url = "/metrics/graceful/"
    assert client.get(url).status_code == 401
    assert client.get(url, headers={"authorization": "Bearer "}).status_code == 401
    with override_settings(RQ_API_TOKEN="s3cret"):
        assert client.get(url, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get(url, headers={"authorization": "Bearer s3cr\xe9t"}).status_code == 401
        answer = client.get(url, headers={"authorization": "Bearer s3cret"})
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    assert b'graceful_up{source="database"} 1.0' in answer.content
    client.force_login(User.objects.create_user("visitor"))
    assert client.get(url).status_code == 401
    client.force_login(User.objects.create_user("operator", is_staff=True))
    assert client.get(url).status_code == 200


def test_wrong_queue_settings() -> None:
    """Settings of a queue that name no server take nothing from the metrics of the database."""
    a_rollup(DAY, "clean", "signal", 1.0)
    with override_settings(RQ_QUEUES={"default": {"URL": "nonsense://"}}):
        found = samples()
    assert found['graceful_up{source="redis"}'] == 0
    assert found['graceful_up{source="database"}'] == 1
    assert found['graceful_shutdowns_total{outcome="clean",reason="signal"}'] == 1
