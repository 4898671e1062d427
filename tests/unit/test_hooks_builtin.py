"""The built-in exit hooks, with stand-ins for what they close."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import redis

from graceful.core.deadline import Deadline
from graceful.core.phases import Reason
from graceful.core.records import HookSpec, InFlightJob, JobTally, Shutdown
from graceful.exceptions import HookSkipped
from graceful.hooks import builtin, runner, threads
from graceful.hooks.builtin import SomeFailed
from graceful.hooks.calls import wants_shutdown
from graceful.hooks.registry import load
from graceful.hooks.threads import ThreadsStillRunning, register_thread

NAMES = [
    "close_database_connections",
    "close_caches",
    "stop_threads",
    "save_worker_statistics",
    "close_redis_pools",
    "flush_sentry",
    "shutdown_opentelemetry",
    "flush_logging",
]


def shutdown_within(seconds: float) -> Shutdown:
    """A shutdown whose hook has so many seconds."""
    met = (InFlightJob("1", "shop.jobs.pay", "default"),)
    jobs = JobTally(finished=312, failed=4, in_flight=met)
    return Shutdown(Reason.SIGNAL, "SIGTERM", "w1", ("high", "low"), jobs, Deadline.after(seconds))


class Connection:
    """A database connection, with a pool if the alias has one."""

    def __init__(self, alias: str, *, is_open: bool = True, pools: dict[object, object] | None = None) -> None:
        self.alias = alias
        self.connection: object = object() if is_open else None
        self.error: Exception | None = None
        if pools is not None:
            self._connection_pools = pools

    def close(self) -> None:
        if self.error:
            raise self.error
        self.connection = None

    @property
    def pool(self) -> object:
        pytest.fail("a pool is made only to be closed")

    def close_pool(self) -> None:
        self._connection_pools.clear()


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that Django has."""
    found: list[Connection] = []

    class Handler:
        def all(self, *, initialized_only: bool) -> list[Connection]:
            assert initialized_only, "connections are made only to be closed"
            return found

    monkeypatch.setattr(builtin, "connections", Handler())
    return found


def test_close_database_connections(databases: list[Connection]) -> None:
    """Open connections and existing pools are closed."""
    pools: dict[object, object] = {"c": object()}
    oracle: dict[object, object] = {("d", "scott"): object()}
    databases.extend(
        [
            Connection("a"),
            Connection("b", is_open=False, pools=pools),
            Connection("c", pools=pools),
            Connection("d", is_open=False, pools=oracle),
        ]
    )
    assert builtin.close_database_connections() == "closed 2 connections and 2 pools"
    assert [each.connection for each in databases] == [None] * 4
    assert (pools, oracle) == ({}, {})
    assert builtin.close_database_connections() == "no database connection was open"


def test_one_connection_that_cannot_be_closed(databases: list[Connection]) -> None:
    """A connection that cannot be closed is reported, and the others are closed."""
    databases.extend([Connection("a"), Connection("b")])
    databases[0].error = OSError("gone")
    with pytest.raises(SomeFailed, match=r"^a: OSError: gone$"):
        builtin.close_database_connections()
    assert databases[1].connection is None


def test_close_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used caches are closed."""
    closed: list[int] = []

    class Cache:
        def close(self) -> None:
            closed.append(1)

    class Handler:
        def all(self, *, initialized_only: bool) -> list[Cache]:
            assert initialized_only
            return [Cache()]

    monkeypatch.setattr(builtin, "caches", Handler())
    assert builtin.close_caches() == "closed 1 cache"
    assert closed == [1]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of this test only."""
    monkeypatch.setattr(threads, "_registered", [])


class Background:
    """A thread that runs until it is told to stop."""

    def __init__(self, name: str) -> None:
        self.told = threading.Event()
        self.thread = threading.Thread(target=self.told.wait, name=name, daemon=True)

    def start(self) -> Background:
        self.thread.start()
        return self


@pytest.fixture
def background(no_threads: None) -> Iterator[Callable[[str], Background]]:
    """Make threads, and stop them at the end."""
    made: list[Background] = []

    def make(name: str) -> Background:
        made.append(Background(name))
        return made[-1]

    yield make
    for each in made:
        each.told.set()


def test_stop_threads(background: Callable[[str], Background]) -> None:
    """Registered threads are asked to stop and joined."""
    first, second = background("first").start(), background("second").start()
    register_thread(first.thread, first.told)
    register_thread(second.thread, second.told.set, timeout=10)
    assert builtin.stop_threads(shutdown_within(30)) == "stopped 2 threads: first, second"
    assert not first.thread.is_alive()
    assert not second.thread.is_alive()
    assert builtin.stop_threads(shutdown_within(30)) == "no registered thread runs"


def test_all_threads_are_told_before_any_is_waited_for(background: Callable[[str], Background]) -> None:
    """All threads are asked to stop before the first one is joined."""
    first, second = background("first").start(), background("second").start()
    register_thread(first.thread, lambda: None)
    register_thread(second.thread, first.told.set)
    register_thread(background("not started").thread, second.told)
    assert builtin.stop_threads(shutdown_within(30)) == "stopped 2 threads: first, second"


def test_thread_that_does_not_stop(background: Callable[[str], Background]) -> None:
    """Threads that do not stop are named in the error; the others are stopped."""
    deaf, broken, good = (background(name).start() for name in ("deaf", "broken", "good"))

    def stop() -> None:
        raise OSError("no way")

    register_thread(deaf.thread, lambda: None, timeout=0.01)
    register_thread(broken.thread, stop, timeout=0.01)
    register_thread(good.thread, good.told)
    with pytest.raises(ThreadsStillRunning) as caught:
        builtin.stop_threads(shutdown_within(30))
    assert str(caught.value) == "broken could not be asked to stop: OSError: no way; deaf still runs; broken still runs"
    assert not good.thread.is_alive()


def test_hook_keeps_time_to_name_the_thread(background: Callable[[str], Background]) -> None:
    """The hook reserves time to name the threads before it times out itself."""
    deaf = background("deaf").start()
    register_thread(deaf.thread, lambda: None)
    shutdown = shutdown_within(0.2)
    with pytest.raises(ThreadsStillRunning, match="deaf still runs"):
        builtin.stop_threads(shutdown)
    assert not shutdown.deadline.expired


def test_registering_a_thread_again_replaces_it(background: Callable[[str], Background]) -> None:
    """Registering a thread again replaces its stop function."""
    thread = background("it").start()
    register_thread(thread.thread, lambda: pytest.fail("the old way"))
    register_thread(thread.thread, thread.told)
    assert builtin.stop_threads(shutdown_within(30)) == "stopped 1 thread: it"


def test_threads_of_the_parent_are_left_alone(
    background: Callable[[str], Background], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child does not stop its parent's threads."""
    thread = background("it").start()
    register_thread(thread.thread, thread.told)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert builtin.stop_threads(shutdown_within(30)) == "no registered thread runs"
    assert not thread.told.is_set()


def test_save_worker_statistics(caplog: pytest.LogCaptureFixture) -> None:
    """The worker's statistics are logged as one line of JSON, and as an attribute of the record."""
    with caplog.at_level(logging.INFO, "graceful.statistics"):
        assert builtin.save_worker_statistics(shutdown_within(5)) == "312 finished, 4 failed"
    (record,) = caplog.records
    statistics = json.loads(record.getMessage())
    assert statistics == record.statistics  # type: ignore[attr-defined]
    assert statistics["worker_cpu_seconds"] > 0
    assert statistics["worker_max_bytes"] > 1_000_000
    assert {key: statistics[key] for key in list(statistics)[:7]} == {
        "worker": "w1",
        "queues": ["high", "low"],
        "reason": "signal",
        "signal": "SIGTERM",
        "jobs_finished": 312,
        "jobs_failed": 4,
        "jobs_in_flight": 1,
    }


def test_close_redis_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections of every pool are closed; connections in use are left alone."""
    calls: list[dict[str, object]] = []

    class Pool(redis.BlockingConnectionPool):
        def disconnect(self, **options: object) -> None:
            calls.append(options)

    class Waking:
        @property
        def __class__(self) -> Any:
            pytest.fail("a lazy object was woken")

        @__class__.setter
        def __class__(self, value: Any) -> None: ...

    pool, waking = Pool(), Waking()
    monkeypatch.setattr(builtin.gc, "get_objects", lambda: [object(), pool, waking, redis.ConnectionPool, 7])
    assert builtin.close_redis_pools() == "closed 1 Redis pool"
    assert calls == [{"inuse_connections": False}]


def test_redis_pools_are_found() -> None:
    """The pools of this redis-py are found through the garbage collector."""
    client = redis.Redis(host="127.0.0.1", port=1)
    assert builtin.close_redis_pools().startswith("closed ")
    client.close()


@pytest.mark.parametrize("name", ["sentry_sdk", "opentelemetry"])
def test_library_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook whose library is not installed is skipped."""
    monkeypatch.setitem(sys.modules, name, None)
    hook = builtin.flush_sentry if name == "sentry_sdk" else builtin.shutdown_opentelemetry
    with pytest.raises(HookSkipped, match=f"^{name} is not installed$"):
        hook(shutdown_within(5))


def test_flush_sentry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry is flushed within the hook's time."""
    seconds: list[float] = []
    module = ModuleType("sentry_sdk")
    module.flush = lambda timeout: seconds.append(timeout)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentry_sdk", module)
    assert builtin.flush_sentry(shutdown_within(5)) == "flushed Sentry"
    assert 4 < seconds[0] < 4.6


class Provider:
    """A provider of OpenTelemetry."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[object] = []
        self.error = error

    def force_flush(self, timeout_millis: int) -> None:
        self.calls.append(timeout_millis)
        if self.error:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A stand-in for OpenTelemetry, with the given providers."""
    providers: dict[str, object] = {"trace": Provider(), "metrics": Provider(), "_logs": object()}
    package = ModuleType("opentelemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    names = {"trace": "get_tracer_provider", "metrics": "get_meter_provider", "_logs": "get_logger_provider"}
    for part, function in names.items():
        module = ModuleType(f"opentelemetry.{part}")
        setattr(module, function, lambda part=part: providers[part])
        setattr(package, part, module)
    return providers


def test_shutdown_opentelemetry(telemetry: dict[str, Any]) -> None:
    """All OpenTelemetry providers are flushed and shut down, once."""
    assert builtin.shutdown_opentelemetry(shutdown_within(10)) == "shut down traces, metrics"
    milliseconds, last = telemetry["trace"].calls
    assert 4000 < milliseconds <= 4500
    assert last == "shutdown"
    assert builtin.shutdown_opentelemetry(shutdown_within(10)) == "no OpenTelemetry provider to shut down"
    assert len(telemetry["trace"].calls) == 2


def test_one_provider_that_fails(telemetry: dict[str, Any]) -> None:
    """A provider that fails does not keep the others from being shut down."""
    telemetry["trace"] = Provider(OSError("away"))
    with pytest.raises(SomeFailed, match=r"^traces: OSError: away$"):
        builtin.shutdown_opentelemetry(shutdown_within(10))
    assert telemetry["metrics"].calls[-1] == "shutdown"


def test_flush_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every handler is flushed, even if another one fails."""
    flushed: list[str] = []

    class Handler(logging.Handler):
        def flush(self) -> None:
            flushed.append(str(self.name))
            if self.name == "broken":
                raise OSError("full")

    handlers = [Handler(), Handler()]
    handlers[0].name, handlers[1].name = "good", "broken"
    outer, inner = logging.getLogger("tests.outer"), logging.getLogger("tests.outer.inner")
    try:
        outer.addHandler(handlers[0])
        inner.addHandler(handlers[0])
        assert builtin.flush_logging().startswith("flushed ")
        assert flushed == ["good"]
        inner.addHandler(handlers[1])
        with pytest.raises(SomeFailed, match=r"^Handler: OSError: full$"):
            builtin.flush_logging()
    finally:
        outer.handlers.clear()
        inner.handlers.clear()


@pytest.mark.parametrize("name", NAMES)
def test_dotted_paths(name: str) -> None:
    """Every built-in hook can be named by its dotted path."""
    wants_shutdown(load(HookSpec(f"graceful.hooks.builtin.{name}", name)))


def test_once() -> None:
    """Exit hooks can be claimed once per process, and again after a release."""
    runner.release()
    try:
        assert runner.claim()
        assert not runner.claim()
        runner.release()
        runner.release()
        assert runner.claim()
    finally:
        runner.release()


def test_once_is_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has a claim of its own."""
    monkeypatch.setattr(runner, "_claims", {})
    assert runner.claim()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert runner.claim()
    assert not runner.claim()
