"""What a worker says of itself to probes, without a worker: times, and what they mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from graceful.core.events import HooksOver, QuietAsked, StopAsked, TornDown
from graceful.core.limits import Budget
from graceful.core.phases import Reason
from graceful.core.shutdown import State, step
from graceful.worker.probes import vital_signs
from graceful.worker.probes.vital_signs import VitalSigns
from graceful.worker.shutdown.os_signals import Inbox


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


def running(*events: Any, budget: Budget | None = None) -> State:
    state = State(budget or Budget(25, 5, 3), started_at=time.monotonic())
    for event in events:
        state, _ = step(state, event, time.monotonic())
    return state


def signs(inbox: Inbox, state: State | None, rq_state: str = "idle", *, redis_away: bool = False) -> VitalSigns:
    session = SimpleNamespace(dequeuer=SimpleNamespace(redis_away=redis_away))
    worker: Any = SimpleNamespace(
        name="w", connection=None, shutdown_state=state, get_state=lambda: rq_state, _session=session
    )
    return VitalSigns(worker, inbox)


def stopped(ago: float = 0.0) -> StopAsked:
    return StopAsked(time.monotonic() - ago, Reason.SIGNAL, "SIGTERM")


@pytest.mark.parametrize(
    ("make", "rq_state", "why"),
    [
        (lambda: None, "started", "starting"),
        (lambda: running(), "started", "starting"),
        (lambda: running(), "idle", ""),
        (lambda: running(), "busy", ""),
        (lambda: running(), "suspended", "suspended"),
        (lambda: running(QuietAsked()), "busy", "quiet"),
        (lambda: running(QuietAsked(), stopped()), "busy", "stopping"),
        (lambda: running(stopped(), TornDown(), HooksOver()), "idle", "stopping"),
    ],
)
def test_ready(inbox: Inbox, make: Callable[[], State | None], rq_state: str, why: str) -> None:
    """Ready only where it takes jobs; in each of these states it is alive."""
    found = signs(inbox, make(), rq_state)
    assert (found.why_not_ready(), found.why_not_alive()) == (why, "")
    assert (found.status()["ready"], found.status()["not_ready"]) == (not why, why)


def test_a_loop_that_does_not_come_by(inbox: Inbox) -> None:
    """Not ready soon, not alive once its peers count it as dead; a wait whose end is known is none."""
    found = signs(inbox, running())
    inbox.due_at = time.monotonic() - 11
    assert found.why_not_ready() == "the worker's loop has given no sign of life for 11 s"
    assert found.why_not_alive() == ""
    inbox.due_at = time.monotonic() - 61
    assert found.why_not_alive() == "the worker's loop has given no sign of life for 61 s"
    inbox.comes_by(again_within=60)
    assert (found.why_not_ready(), found.why_not_alive()) == ("", "")
    inbox.wait(0)
    assert time.monotonic() - inbox.due_at < 5


def test_a_loop_that_waits_for_redis(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ready, and a restart would help only after all of Redis's own time-outs."""
    monkeypatch.setattr(vital_signs, "main_thread_waits", lambda: True)
    found = signs(inbox, running())
    inbox.due_at = time.monotonic() - 300
    assert (bool(found.why_not_ready()), found.why_not_alive()) == (True, "")
    inbox.due_at = time.monotonic() - 601
    assert found.why_not_alive() == "the worker's loop has given no sign of life for 601 s"
    assert signs(inbox, running(), redis_away=True).why_not_ready() == "Redis is unreachable"


def test_a_drain_is_alive_until_its_end(inbox: Inbox) -> None:
    """However little the loop comes by: its guards end it, and beyond that it has none any more."""
    inbox.due_at = time.monotonic() - 100
    assert signs(inbox, running(stopped())).why_not_alive() == ""
    assert signs(inbox, running(stopped(27))).why_not_alive() == ""
    assert signs(inbox, running(stopped(31))).why_not_alive() == "the process should have ended 6 s ago"
