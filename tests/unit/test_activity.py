"""When a worker is told busy or idle: debounced, renewed, retried."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.activity import RENEW_SECONDS, RETRY_SECONDS, Pulse, next_call

IDLE_AFTER = 10.0
STARTED = Pulse(idle_since=100.0)
WORKING = replace(STARTED, working=True)
TOLD_BUSY = replace(STARTED, told=True, told_at=100.0)
TOLD_IDLE = replace(STARTED, told=False, told_at=100.0)


@pytest.mark.parametrize(
    ("pulse", "now", "expected"),
    [
        (STARTED, 100.0, (None, 10.0)),
        (STARTED, 110.0, (False, 0.0)),
        (WORKING, 100.0, (True, 0.0)),
        (replace(TOLD_IDLE, working=True), 100.0, (True, 0.0)),
        (replace(TOLD_BUSY, working=True), 101.0, (None, RENEW_SECONDS - 1)),
        (replace(TOLD_BUSY, working=True), 100 + RENEW_SECONDS, (True, 0.0)),
        (TOLD_BUSY, 104.0, (None, 6.0)),
        (TOLD_BUSY, 110.0, (False, 0.0)),
        (TOLD_IDLE, 10_000.0, (None, math.inf)),
        (replace(TOLD_IDLE, succeeded=False), 101.0, (None, RETRY_SECONDS - 1)),
        (replace(TOLD_IDLE, succeeded=False), 100 + RETRY_SECONDS, (False, 0.0)),
        (replace(TOLD_BUSY, working=True, succeeded=False), 100 + RETRY_SECONDS, (True, 0.0)),
        (replace(TOLD_BUSY, idle_since=100 + RENEW_SECONDS), 100 + RENEW_SECONDS, (True, 0.0)),
    ],
)
def test_what_is_told_next(pulse: Pulse, now: float, expected: tuple[bool | None, float]) -> None:
    """Busy at once, idle after a while; renewed while it is busy, and tried again where it failed."""
    assert next_call(pulse, now, IDLE_AFTER) == expected


@pytest.mark.parametrize(
    ("pulse", "told"),
    [
        (STARTED, None),
        (TOLD_BUSY, False),
        (replace(TOLD_BUSY, succeeded=False), False),
        (TOLD_IDLE, None),
        (replace(TOLD_IDLE, succeeded=False), False),
    ],
)
def test_the_end(pulse: Pulse, told: bool | None) -> None:
    """At its end a worker is told idle without waiting, where it was told busy, or where idle was not heard."""
    assert next_call(replace(pulse, ending=True), 100.0, IDLE_AFTER) == (told, 0.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 700)), max_size=30), st.booleans())
def test_no_sequence_of_jobs_leads_to_many_calls(jobs: list[tuple[float, float]], succeeded: bool) -> None:
    """Whatever the jobs and pauses, busy is told when a job begins, and a change at most once in the idle time."""
    pulse, now, changes = Pulse(idle_since=0.0), 0.0, []

    def look_until(instant: float) -> None:
        nonlocal pulse, now
        while True:
            busy, seconds = next_call(pulse, now, IDLE_AFTER)
            if busy is None and now + seconds > instant:
                break
            if busy is not None:
                changes.extend([(now, busy, pulse.working)] if busy is not pulse.told else [])
                pulse = replace(pulse, told=busy, told_at=now, succeeded=succeeded)
            else:
                assert seconds > 0
                now = math.nextafter(now + seconds, math.inf)
        now = max(now, instant)

    for pause, job in jobs:
        look_until(now + pause)
        pulse = replace(pulse, working=True)
        look_until(now)
        assert pulse.told is True
        look_until(now + job)
        pulse = replace(pulse, working=False, idle_since=now)
    for kind in (True, False):
        instants = [at for at, busy, _ in changes if busy is kind]
        assert all(later - earlier >= IDLE_AFTER - 1e-6 for earlier, later in itertools.pairwise(instants))
    assert not any(working for _, busy, working in changes if not busy)
