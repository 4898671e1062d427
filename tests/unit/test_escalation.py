"""What repeated signals mean: a state machine against the rules in words, and single cases."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from graceful.core.deadline import Deadline
from graceful.core.limits import Budget, Limits, distinct

NEAR = 1e-6


class Escalation(RuleBasedStateMachine):
    """Signals come at any instants; the limits are compared with a model that knows only the rules."""

    @initialize(
        timeout=st.floats(0.1, 60),
        hooks=st.floats(0.01, 20),
        interrupt=st.floats(0.01, 20),
        at=st.floats(0, 1e5),
    )
    def first_signal(self, timeout: float, hooks: float, interrupt: float, at: float) -> None:
        self.timeout, self.hooks, self.interrupt = timeout, min(hooks, timeout * 0.9), interrupt
        self.instants = [at]
        self.counted = [at]
        self.before: Limits | None = None
        self.limits = self.ask()

    def ask(self) -> Limits:
        return Budget(self.timeout, self.hooks, self.interrupt).limits(self.instants)

    def signal(self, at: float) -> None:
        self.instants.append(at)
        self.before, self.limits = self.limits, self.ask()

    @rule(after=st.floats(0, 0.99))
    def within_a_second(self, after: float) -> None:
        at = max(self.instants[-1], min(self.counted[-1] + after, self.counted[-1] + 0.999))
        if at - self.counted[-1] < 0.9999:
            self.signal(at)
            assert self.limits == self.before, "a signal within a second of the last counted one changes nothing"

    @rule(after=st.floats(1.001, 30))
    def later_on(self, after: float) -> None:
        at = max(self.instants[-1], self.counted[-1]) + after
        self.counted.append(at)
        self.signal(at)

    @invariant()
    def in_order(self) -> None:
        assert self.limits.soft.at <= self.limits.hard.at + NEAR
        assert self.limits.hard.at <= self.limits.end.at + NEAR
        assert self.limits.end.at == pytest.approx(self.counted[0] + self.timeout)

    @invariant()
    def never_later_than_before(self) -> None:
        if self.before is not None:
            assert self.limits.soft <= self.before.soft
            assert self.limits.hard <= self.before.hard
            assert self.limits.end == self.before.end

    @precondition(lambda self: len(self.counted) == 1)
    @invariant()
    def one_signal(self) -> None:
        assert self.limits.hard.at == pytest.approx(self.counted[0] + self.timeout - self.hooks)
        assert self.limits.soft.at == pytest.approx(self.limits.hard.at - self.interrupt)

    @precondition(lambda self: len(self.counted) >= 2)
    @invariant()
    def the_second_makes_the_soft_limit_now(self) -> None:
        assert self.limits.soft.at <= self.counted[1]
        assert self.limits.hard.at <= self.counted[1] + self.interrupt + NEAR

    @precondition(lambda self: len(self.counted) >= 3)
    @invariant()
    def the_third_makes_the_hard_limit_now(self) -> None:
        assert self.limits.hard.at <= self.counted[2]


TestEscalation = Escalation.TestCase
TestEscalation.settings = settings(max_examples=50, stateful_step_count=12, deadline=None)


@given(st.lists(st.floats(0, 20), min_size=1).map(sorted))
def test_counted_signals_are_a_second_apart(instants: list[float]) -> None:
    """Signals within a second of each other count as one, as with Ctrl+C in a terminal."""
    counted = distinct(instants)
    assert counted[0] == instants[0]
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(counted))
    assert set(counted) <= set(instants)
    # Each signal that does not count is within a second of one that does.
    assert all(any(0 <= instant - one < 1.0 for one in counted) for instant in instants)


def test_the_limits_of_the_default_settings() -> None:
    """The default settings give the documented limits."""
    of = Budget(timeout=25.0, hooks=5.0, interrupt=3.0).limits
    assert of([100.0]) == Limits(Deadline(117.0), Deadline(120.0), Deadline(125.0))
    assert of([100.0, 100.5]) == of([100.0])
    assert of([100.0, 104.0]) == Limits(Deadline(104.0), Deadline(107.0), Deadline(125.0))
    assert of([100.0, 104.0, 105.5]) == Limits(Deadline(104.0), Deadline(105.5), Deadline(125.0))
    # A second signal past the soft limit leaves everything as it is.
    assert of([100.0, 119.0]) == of([100.0])
