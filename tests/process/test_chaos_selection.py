"""A fixed selection of the chaos suite: every fault at least twice. ``make chaos`` is the whole."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.lane import Lane
from tests.chaos.lanes import run
from tests.chaos.plan import plan
from tests.chaos.rounds import TOLERATED_SECONDS, Outcome, play

SEED = 60
ROUNDS = 60
SLICES = 3
LANES = 3
"""Each lane has a server and a nursery of workers of its own; pytest-xdist can spread the slices."""


@pytest.mark.parametrize("part", range(SLICES))
def test_nothing_is_missing_whatever_breaks(part: int) -> None:
    """A job would be lost or run twice, a report missing, or something left over, when one thing breaks."""
    outcomes: list[Outcome] = []
    rounds = [plan(SEED, number, list(FAULTS), FAULTS) for number in range(part, ROUNDS, SLICES)]
    run(rounds, LANES, outcomes.append)
    assert len(outcomes) == len(rounds)
    for outcome in outcomes:
        assert not outcome.wrong, f"{outcome.wrong}\n{outcome.round}\n{outcome.logs}"
        assert (outcome.overrun or 0.0) < TOLERATED_SECONDS, f"{outcome.overrun:.2f} s late\n{outcome.logs}"


def test_the_books_tell_a_lost_job_from_a_found_one() -> None:
    """The suite would find nothing missing, whatever is missing: the stock worker loses jobs when it is killed."""
    lost: list[str] = []
    with Lane() as lane:
        for number in range(12):
            lost += play(lane, plan(SEED, number, ["kill_both"], FAULTS), stock=True).lost
            if lost:
                break
    assert lost
