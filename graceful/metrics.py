"""Shutdowns and living workers as Prometheus metrics, read from the roll-ups and from Redis at each scrape.

A worker that shuts down is never scraped again, so nothing is counted in the worker: a web process exports what all
workers did, through :func:`prometheus_metrics` or through a registry of the project's own::

    from prometheus_client import REGISTRY
    from graceful.metrics import GracefulCollector

    REGISTRY.register(GracefulCollector())

A scrape reads what others have written: it reaps no worker, runs no maintenance, and loads no job.
"""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate, product

from django.conf import settings as django_settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
except ImportError as error:
    raise ImportError(
        "graceful.metrics needs prometheus-client: pip install 'django-rq-graceful[prometheus]'"
    ) from error
from redis import RedisError

from graceful.core.histogram import BOUNDS
from graceful.core.phases import HookOutcome, Outcome, Phase, Reason
from graceful.core.records import ShutdownReport, utc_now
from graceful.core.text import one_line
from graceful.reports.sources import journals
from graceful.reports.sums import CachedSums, Histogram, Sums
from graceful.worker.cluster.heartbeat import heard_worker_ids
from graceful.worker.cluster.poison import count_poison

log = logging.getLogger("graceful.metrics")
UNREACHABLE = "Metrics without %s: %s"

REDIS_SECONDS = 2.0
"""For all Redis servers in one scrape; Prometheus itself gives up after 10 s by default."""
MOST_RELEASES = 20
MOST_HOOKS = 100
OTHER = "(other)"
"""The label of releases and hooks beyond these numbers."""
QUIET = "quiet"
SILENT = "silent"
STATES = (QUIET, SILENT, *(phase.value for phase in Phase if phase is not Phase.SEALED))
"""Values of the label ``state``: each living worker is in one of them."""
RUN_OUTCOMES = (HookOutcome.OK, HookOutcome.FAILED, HookOutcome.TIMED_OUT)
LE = (*(str(bound) for bound in BOUNDS), "+Inf")


class GracefulCollector:
    """Collector for ``prometheus_client``; where Redis or the database is unreachable, ``graceful_up`` says so."""

    def __init__(self) -> None:
        self._sums = CachedSums()

    def describe(self) -> Iterable[Metric]:
        """Names without values, so that registering queries neither the database nor Redis."""
        return [*_history(Sums()), *_fleet([], frozenset()), *_waiting([]), _poison(0), _up({})]

    def collect(self) -> Iterator[Metric]:
        """The current metrics. A source that is unreachable has none; it takes nothing from those of the other."""
        up = {"database": True, "redis": True}
        try:
            yield from _history(self._sums.read())
        except (DatabaseError, OSError) as error:
            up["database"] = False
            log.info(UNREACHABLE, "the database", error)
        reports: list[ShutdownReport] = []
        heard: set[str] = set()
        poison = 0
        try:
            everywhere = journals(REDIS_SECONDS)
        except Exception as error:  # Wrong queue settings can raise anything.
            everywhere, up["redis"] = [], False
            log.info(UNREACHABLE, "Redis", error)
        for journal in everywhere:
            try:
                content = journal.read()
                heard |= heard_worker_ids(journal.connection)
                poison += count_poison(journal.connection)
                reports += (*content.open, *content.sealed)
            except (RedisError, OSError) as error:
                up["redis"] = False
                log.info(UNREACHABLE, "Redis", error)
            finally:
                journal.connection.close()
        if up["redis"]:  # Otherwise some of the workers would seem to be gone.
            yield from _fleet([report for report in reports if not report.sealed], heard)
            yield from _waiting([report for report in reports if report.sealed])
            yield _poison(poison)
        yield _up(up)


def _history(sums: Sums) -> Iterator[Metric]:
    shutdowns = CounterMetricFamily("graceful_shutdowns", "Worker shutdowns.", labels=["outcome", "reason"])
    # With zeros, so that the first one is an increase.
    for key in sorted({*product(Outcome, Reason), *sums.shutdowns}):
        shutdowns.add_metric(key, sums.shutdowns.get(key, 0))
    yield shutdowns
    yield CounterMetricFamily(
        "graceful_interrupted_jobs", "Jobs that a shutdown did not let finish.", value=sums.jobs_interrupted
    )
    for name, text, histogram in (
        ("graceful_shutdown_drain_seconds", "From the request to stop until no job was in flight.", sums.drain),
        ("graceful_shutdown_hooks_seconds", "From the end of the drain to the end of the shutdown.", sums.hooks),
        ("graceful_shutdown_seconds", "From the request to stop to the end of the shutdown.", sums.total),
    ):
        family = HistogramMetricFamily(name, text)
        _add(family, [], histogram)
        yield family
    runs = CounterMetricFamily("graceful_hook_runs", "Runs of exit hooks.", labels=["hook", "outcome"])
    seconds = HistogramMetricFamily("graceful_hook_seconds", "How long exit hooks ran.", labels=["hook"])
    counts: Counter[tuple[str, str]] = Counter()
    spent: dict[str, Histogram] = {}
    newest = sorted(sums.newest, key=lambda hook: (sums.newest[hook], hook), reverse=True)
    labels = {hook: one_line(hook) if place < MOST_HOOKS else OTHER for place, hook in enumerate(newest)}
    for hook, label in labels.items():
        spent.setdefault(label, Histogram()).add(sums.hook_seconds[hook].counts, sums.hook_seconds[hook].seconds)
        counts.update(dict.fromkeys(product([label], RUN_OUTCOMES), 0))
    for (hook, outcome), count in sums.runs.items():
        counts[labels[hook], outcome] += count
    for key, count in sorted(counts.items()):
        runs.add_metric(key, count)
    for hook in sorted(spent):
        _add(seconds, [hook], spent[hook])
    yield runs
    yield seconds


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, list(zip(LE, accumulate(histogram.counts), strict=True)), histogram.seconds)


def _fleet(reports: Iterable[ShutdownReport], heard: Collection[str]) -> Iterator[Metric]:
    """Workers whose reports are not sealed: the living, and those that were killed and that nobody has found yet."""
    workers = GaugeMetricFamily(
        "graceful_workers",
        "Workers by state and release; a silent one has missed its heartbeat.",
        labels=["state", "release"],
    )
    living = [(_state(report, heard), one_line(report.release), report.started_at) for report in reports]
    newest = {release: started for _, release, started in sorted(living, key=lambda each: each[2])}
    shown = sorted(newest, key=lambda release: (newest[release], release))[-MOST_RELEASES:]
    labels = {release: release if release in shown else OTHER for release in newest}
    counts = Counter(dict.fromkeys(product(STATES, labels.values()), 0))
    for state, release, _ in living:
        counts[state, labels[release]] += 1
    for key, count in sorted(counts.items()):
        workers.add_metric(key, count)
    yield workers


def _state(report: ShutdownReport, heard: Collection[str]) -> str:
    if report.id not in heard:
        return SILENT
    return QUIET if report.quiet and report.phase is Phase.RUNNING else report.phase.value


def _waiting(reports: Collection[ShutdownReport]) -> Iterator[Metric]:
    now = utc_now()
    ages = [(now - (report.ended_at or report.requested_at or report.started_at)).total_seconds() for report in reports]
    yield GaugeMetricFamily(
        "graceful_unarchived_reports", "Reports in Redis that wait for the database.", value=len(reports)
    )
    yield GaugeMetricFamily(
        "graceful_oldest_unarchived_report_age_seconds",
        "Age of the oldest report in Redis that waits for the database; 0 if none waits.",
        value=max([0.0, *ages]),
    )


def _poison(number: int) -> Metric:
    return GaugeMetricFamily(
        "graceful_poison_jobs",
        "Jobs that failed because they were interrupted, or their workers were killed, too often.",
        value=number,
    )


def _up(sources: Mapping[str, bool]) -> Metric:
    family = GaugeMetricFamily("graceful_up", "Whether the last scrape could read this source.", labels=["source"])
    for source, reachable in sources.items():
        family.add_metric([source], int(reachable))
    return family


_registry = CollectorRegistry()
_registry.register(GracefulCollector())


@never_cache
def prometheus_metrics(request: HttpRequest) -> HttpResponse:
    """The metrics of this package alone, for whoever django-rq's own view of metrics lets in.

    That is staff, or whoever sends ``Authorization: Bearer`` with the setting ``RQ_API_TOKEN``.
    """
    if not _allowed(request):
        return HttpResponse("Log in as staff, or send RQ_API_TOKEN as a bearer token.\n", "text/plain", 401)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry), content_type)


def _allowed(request: HttpRequest) -> bool:
    token = str(getattr(django_settings, "RQ_API_TOKEN", None) or "")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if token and scheme == "Bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return True
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.is_staff
