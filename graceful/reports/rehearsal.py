"""A rehearsal: a made-up drain decided by the real state machine, and the configured exit hooks run for real.

Nothing is taken from a queue, and nothing is stored. The drain takes no time: the shutdown counts as requested so long
ago as the made-up job would have taken, so that the hooks find the time that they would then have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.events import Event, HookEnded, HooksOver, HookStarted, JobEnded, JobTaken, StopAsked, Tick, TornDown
from graceful.core.limits import Budget, hooks_deadline
from graceful.core.phases import JobOutcome, Reason
from graceful.core.records import InFlightJob, ShutdownReport
from graceful.core.shutdown import State, step
from graceful.hooks import registry, runner, watchdog
from graceful.reports.builder import Clock, WorkerIdentity, report_of, shutdown_of

JOB = InFlightJob("rehearsal", "made_up_job", "rehearsal")
WATCHDOG_SECONDS = 1.0
"""The watchdog ends the process this long after the end of the grace period."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The made-up job in flight.

    Args:
        job_seconds: how long it still runs after the signal; None for an idle worker.
        cleanup_seconds: how long it takes to end once ``JobInterrupted`` was raised in it.
        stubborn: it swallows the interruption, and runs on.
    """

    job_seconds: float | None = None
    cleanup_seconds: float = 0.0
    stubborn: bool = False


def rehearse(settings: Settings, drain: Drain, signal: str = "SIGTERM") -> ShutdownReport:
    """Run the exit hooks after a made-up drain. Call it in the main thread of a process that ends afterwards.

    Args:
        settings: the settings to rehearse.
        drain: the job in flight.
        signal: name of the signal that asks for the shutdown.

    Returns:
        the report that a worker would have stored.
    """
    runner.claim()  # So that graceful.run_at_exit() does not run them again.
    worker = WorkerIdentity("rehearsal", (JOB.queue,), "rehearsal", settings.release)
    state = _drained(settings, drain, signal)
    began = Clock()
    watchdog.arm(Deadline.after(state.end(time.monotonic()).left() + WATCHDOG_SECONDS))

    def send(event: Event) -> None:
        nonlocal state
        state, _ = step(state, event, time.monotonic())

    try:
        runner.run_hooks(
            registry.exit_hooks(),
            shutdown=lambda deadline: shutdown_of(state, worker, deadline),
            deadline=hooks_deadline(state.end(time.monotonic()), settings.hooks_timeout),
            on_start=lambda spec, seconds: send(HookStarted(spec.name)),
            on_end=lambda result: send(HookEnded(result)),
        )
    finally:
        watchdog.disarm()
    send(HooksOver())
    return report_of(state, worker, began, began)


def _drained(settings: Settings, drain: Drain, signal: str) -> State:
    """The state of a worker whose made-up job has just ended."""
    budget = Budget(settings.timeout, settings.hooks_timeout, settings.interrupt_timeout)
    limits = budget.limits((0.0,))
    seconds = drain.job_seconds or 0.0
    if seconds > limits.soft.at and not drain.stubborn:
        seconds = limits.soft.at + drain.cleanup_seconds
    seconds = min(seconds, limits.hard.at)
    now = time.monotonic()
    asked_at = now - seconds
    state = State(budget, started_at=asked_at)
    if drain.job_seconds is not None:
        state, _ = step(state, JobTaken(JOB), asked_at)
    state, _ = step(state, StopAsked(asked_at, Reason.SIGNAL, signal), asked_at)
    if drain.job_seconds is not None:
        state, _ = step(state, Tick(), now)
        outcome = JobOutcome.FINISHED
        interrupted = state.killed or (state.interrupt_sent and not drain.stubborn)
        if interrupted:
            fails = settings.interrupted_jobs == "fail" or settings.max_interruptions == 0
            requeued = JobOutcome.KILLED if state.killed else JobOutcome.INTERRUPTED
            outcome = JobOutcome.INTERRUPTION_FAILED if fails else requeued
        state, _ = step(state, JobEnded(JOB._replace(outcome=outcome, interruptions=int(interrupted))), now)
    return step(state, TornDown(), now)[0]


@contextmanager
def outage(*, database: bool = False, redis: bool = False) -> Iterator[None]:
    """Within the block this process can open no connection to its databases, or to any Redis, as in an outage.

    Args:
        database: for every entry of ``DATABASES``.
        redis: for every client of redis-py.
    """
    usual = BaseDatabaseWrapper.ensure_connection, AbstractConnection.connect
    try:
        if database:
            connections.close_all()
            # Not connect(): an SQLite database in memory, as of a test, stays open over close().
            BaseDatabaseWrapper.ensure_connection = _no_database  # type: ignore[method-assign]
        if redis:
            AbstractConnection.connect = _no_redis  # type: ignore[method-assign]
        yield
    finally:
        BaseDatabaseWrapper.ensure_connection, AbstractConnection.connect = usual  # type: ignore[method-assign]


def _no_database(self: Any) -> None:
    raise OperationalError("rehearsal: the database is unreachable")


def _no_redis(self: Any, *args: Any, **options: Any) -> None:
    raise RedisConnectionError("rehearsal: Redis is unreachable")
