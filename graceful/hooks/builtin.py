"""Exit hooks for common libraries; named by dotted path, ``"graceful.hooks.builtin.close_caches"``.

Each may run twice, and returns a short summary. A hook whose library is not installed is reported as skipped.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import resource
import sys
import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import redis
from django.core.cache import caches
from django.db import connections

from graceful.core.deadline import Deadline
from graceful.core.records import Shutdown
from graceful.exceptions import HookSkipped
from graceful.hooks import tracing
from graceful.hooks.threads import MARGIN_SECONDS, stop_registered

_shut_down_before: weakref.WeakSet[Any] = weakref.WeakSet()
statistics_logger = logging.getLogger("graceful.statistics")


class SomeFailed(RuntimeError):
    """A hook did what it could, and some of it failed; the message says what."""


def close_database_connections() -> str:
    """Close this thread's database connections, and the pools (``OPTIONS: {"pool": ...}``) of their aliases.

    A later query opens a new one, so the report is still stored.

    Raises:
        SomeFailed: one could not be closed; the others are closed.
    """
    closed, pools = 0, 0
    failed: list[str] = []
    opened: Iterable[Any] = connections.all(initialized_only=True)
    for connection in opened:
        was_open = connection.connection is not None
        # Django keeps a connection to an in-memory SQLite database open.
        closed += _try(connection.alias, connection.close, failed) and was_open and connection.connection is None
        if has_pool(connection):
            pools += _try(f"pool of {connection.alias}", connection.close_pool, failed)
    return _done({"connection": closed, "pool": pools}, failed, nothing="no database connection was open")


def close_caches() -> str:
    """Close the caches that this thread has used (memcached connections, or whatever a backend's ``close()`` does).

    Raises:
        SomeFailed: one could not be closed; the others are closed.
    """
    failed: list[str] = []
    closed = sum(_try(type(cache).__name__, cache.close, failed) for cache in caches.all(initialized_only=True))
    return _done({"cache": closed}, failed, nothing="no cache was used")


def stop_threads(shutdown: Shutdown) -> str:
    """Ask all threads of ``graceful.register_thread`` to stop, then join each.

    Raises:
        ThreadsStillRunning: some have not stopped in the time that this hook has.
    """
    margin = min(MARGIN_SECONDS, shutdown.time_left() / 10)
    stopped = stop_registered(Deadline.after(shutdown.time_left() - margin))
    if not stopped:
        return "no registered thread runs"
    return f"stopped {_counted(len(stopped), 'thread')}: {', '.join(stopped)}"


def save_worker_statistics(shutdown: Shutdown) -> str:
    """Write the worker's statistics as one line of JSON to the logger ``graceful.statistics``, level INFO.

    RQ forgets a worker's counts when it ends. The line holds worker, queues, reason, signal, jobs finished and failed,
    jobs in flight at the shutdown, CPU seconds of the worker and of its work horses, the largest memory of either in
    bytes (``getrusage(2)``), and the time. The same facts are in the record's ``statistics`` attribute.
    """
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    kilo = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in kilobytes elsewhere
    statistics = {
        "worker": shutdown.worker,
        "queues": list(shutdown.queues),
        "reason": shutdown.reason.value,
        "signal": shutdown.signal,
        "jobs_finished": shutdown.jobs.finished,
        "jobs_failed": shutdown.jobs.failed,
        "jobs_in_flight": len(shutdown.jobs.in_flight),
        "worker_cpu_seconds": round(own.ru_utime + own.ru_stime, 3),
        "horses_cpu_seconds": round(children.ru_utime + children.ru_stime, 3),
        "worker_max_bytes": own.ru_maxrss * kilo,
        "horses_max_bytes": children.ru_maxrss * kilo,
        "ended_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    statistics_logger.info("%s", json.dumps(statistics), extra={"statistics": statistics})
    return f"{shutdown.jobs.finished} finished, {shutdown.jobs.failed} failed"


def close_redis_pools() -> str:
    """Close the idle connections of every redis-py pool in this process, whoever made it.

    django-rq creates a pool for each queue object and keeps no list of them, so they are found through Python's garbage
    collector. Connections in use are left alone, and a pool reconnects on demand.

    Raises:
        SomeFailed: one could not be closed; the others are closed.
    """
    failed: list[str] = []
    closed = 0
    for candidate in gc.get_objects():
        # Not isinstance(): that would evaluate lazy objects.
        if issubclass(type(candidate), redis.ConnectionPool):
            closed += _try("pool", functools.partial(candidate.disconnect, inuse_connections=False), failed)
    return _done({"Redis pool": closed}, failed, nothing="there is no Redis pool")


def flush_sentry(shutdown: Shutdown) -> str:
    """Send the events in the buffer of Sentry's client.

    Raises:
        HookSkipped: ``sentry_sdk`` is not installed.
    """
    try:
        import sentry_sdk
    except ImportError:
        raise HookSkipped("sentry_sdk is not installed") from None
    sentry_sdk.flush(timeout=shutdown.time_left() * 0.9)
    return "flushed Sentry"


def shutdown_opentelemetry(shutdown: Shutdown) -> str:
    """Flush and shut down OpenTelemetry's providers of traces, metrics and logs.

    In a worker the spans of the shutdown are made before that; hooks after this one are not among them.

    Raises:
        HookSkipped: ``opentelemetry`` is not installed.
        SomeFailed: one could not be shut down; the others are.
    """
    failed: list[str] = []
    done: list[str] = []
    providers = _opentelemetry_providers()
    _try("the spans of the shutdown", tracing.emit, failed)
    for number, (name, provider) in enumerate(providers):
        milliseconds = int(shutdown.time_left() * 900 / (len(providers) - number))
        if _try(name, functools.partial(_shut_down, provider, milliseconds), failed):
            done.append(name)
    if failed:
        raise SomeFailed("; ".join(failed))
    if not done:
        return "no OpenTelemetry provider to shut down"
    return f"shut down {', '.join(done)}"


def flush_logging() -> str:
    """Flush every handler of every logger.

    Raises:
        SomeFailed: one could not be flushed; the others are.
    """
    failed: list[str] = []
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values())]
    handlers = {id(handler): handler for each in loggers for handler in getattr(each, "handlers", ())}
    flushed = sum(_try(type(handler).__name__, handler.flush, failed) for handler in handlers.values())
    return _done({"log handler": flushed}, failed, nothing="there is no log handler", verb="flushed")


def has_pool(connection: Any) -> bool:
    """Whether the alias already has a pool; ``connection.pool`` and ``close_pool`` would create one.

    Read in Django 5.2 to 6.1: a dict of the class, keyed by alias (PostgreSQL) or (alias, user) (Oracle).
    """
    keys = getattr(connection, "_connection_pools", ())
    return any(connection.alias == key or (isinstance(key, tuple) and connection.alias == key[0]) for key in keys)


def _opentelemetry_providers() -> list[tuple[str, Any]]:
    """The configured providers, without OpenTelemetry's placeholder ones, which have nothing to shut down."""
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        raise HookSkipped("opentelemetry is not installed") from None
    found: list[tuple[str, Any]] = [("traces", trace.get_tracer_provider()), ("metrics", metrics.get_meter_provider())]
    try:
        from opentelemetry import _logs as logs
    except ImportError:  # still with an underscore, and not in every version
        pass
    else:
        found.append(("logs", logs.get_logger_provider()))
    return [(name, each) for name, each in found if hasattr(each, "shutdown") and each not in _shut_down_before]


def _shut_down(provider: Any, milliseconds: int) -> None:
    if hasattr(provider, "force_flush"):
        provider.force_flush(milliseconds)
    provider.shutdown()
    _shut_down_before.add(provider)


def _try(what: str, call: Callable[[], object], failed: list[str]) -> bool:
    """Whether the call succeeded; its error is appended to ``failed``, so that the other calls still run."""
    try:
        call()
    except Exception as error:
        failed.append(f"{what}: {type(error).__name__}: {error}")
        return False
    return True


def _done(counts: dict[str, int], failed: Iterable[str], *, nothing: str, verb: str = "closed") -> str:
    if problems := "; ".join(failed):
        raise SomeFailed(problems)
    told = [_counted(count, what) for what, count in counts.items() if count]
    return f"{verb} {' and '.join(told)}" if told else nothing


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
