"""The coordinator carries effects out: in which order, and what one that fails or blocks does to the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from graceful.core.events import Effect, JobTaken
from graceful.core.limits import Budget
from graceful.core.records import InFlightJob
from graceful.core.shutdown import State
from graceful.worker.compat import redis_connection
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.os_signals import Inbox


class Recorded:
    """Notes the effects; some of them fail."""

    def __init__(self, *failing: Effect) -> None:
        self.failing = failing
        self.seen: list[Effect] = []

    def carry_out(self, effect: Effect, coordinator: Coordinator) -> None:
        self.seen.append(effect)
        if effect in self.failing:
            raise OSError("on purpose")


def coordinator(effects: Recorded, inbox: Inbox, budget: Budget | None = None) -> Coordinator:
    return Coordinator(State(budget or Budget(25, 5, 3), started_at=time.monotonic()), inbox, effects)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.mark.parametrize("before", [signal.SIGTSTP, signal.SIGTTIN])
def test_a_log_that_nobody_reads_does_not_keep_the_end_from_being_guarded(before: signal.Signals, inbox: Inbox) -> None:
    """Of signals that came together, logging comes last: writing to a log may block for ever."""
    effects = Recorded()
    inbox.record(before, None)
    inbox.record(signal.SIGTERM, None)
    coordinator(effects, inbox).attend()
    assert {Effect.GUARD, Effect.WRITE_JOURNAL} <= set(effects.seen)
    assert [effect.logs for effect in effects.seen] == sorted(effect.logs for effect in effects.seen)


def test_a_job_past_its_limits_is_killed_before_anything_is_logged(inbox: Inbox) -> None:
    """A worker that hears of the signal too late kills the job, and logs then."""
    effects = Recorded()
    coordinating = coordinator(effects, inbox, Budget(1e-6, 1e-7, 1e-7))
    coordinating.send(JobTaken(InFlightJob("a", "f", "default")))
    inbox.record(signal.SIGTERM, None)
    time.sleep(0.001)
    coordinating.attend()
    assert effects.seen[-2:] == [Effect.KILL, Effect.REQUESTED]


def test_an_effect_that_fails_keeps_neither_the_others_nor_the_loop(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal is written and the request is logged, though the Redis pool could not be bounded."""
    effects = Recorded(Effect.BOUND_REDIS)
    inbox.record(signal.SIGTERM, None)
    assert coordinator(effects, inbox).attend().stopping
    assert {Effect.BOUND_REDIS, Effect.WRITE_JOURNAL, Effect.REQUESTED} <= set(effects.seen)
    assert "the step BOUND_REDIS failed" in caplog.text


def test_the_job_is_described_before_the_stop_is_taken_in(inbox: Inbox) -> None:
    """The report that a signal writes ahead names the job's function, which its process knows by then."""
    coordinating = coordinator(Recorded(), inbox)
    coordinating.send(JobTaken(InFlightJob("a", "?", "default")))
    inbox.record(signal.SIGTERM, None)
    state = coordinating.attend(InFlightJob("a", "shop.tasks.pay", "default"))
    assert [job.function for job in state.jobs.in_flight] == ["shop.tasks.pay"]


@pytest.mark.parametrize("pool_class", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_idle_connections_are_dropped(pool_class: Callable[..., redis.ConnectionPool]) -> None:
    """Whatever pool a project uses, with every version of redis-py."""
    redis_connection.drop_idle(pool_class(host="localhost"))
