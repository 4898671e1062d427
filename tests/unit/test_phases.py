"""The words of a shutdown, and that it never goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graceful.core.phases import Phase, later

phases = st.sampled_from(list(Phase))


def test_phases_are_in_the_order_in_which_they_are_reached() -> None:
    """The order of the phases is the order in which they are reached."""
    assert [phase.value for phase in Phase] == ["running", "requested", "draining", "drained", "hooks", "sealed"]
    assert [phase.rank for phase in Phase] == list(range(6))


@given(st.lists(phases, min_size=1))
def test_a_shutdown_never_goes_back(events: list[Phase]) -> None:
    """``later`` never returns an earlier phase."""
    reached = Phase.RUNNING
    for event in events:
        before, reached = reached, later(event, reached)
        assert reached.rank >= before.rank
        assert reached in (before, event)
    assert all(event.rank <= reached.rank for event in events)
