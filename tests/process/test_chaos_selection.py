"""A fixed selection of the chaos suite: every fault twice. ``make chaos`` is the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, names_for
from tests.chaos.lane import Lane
from tests.chaos.lanes import run
from tests.chaos.ledger import Ledger
from tests.chaos.plan import ACTORS, Round, plan
from tests.chaos.rounds import TOLERATED_SECONDS, Outcome, play
from tests.support.processes import ROOT

SEED = 79
NAMES = names_for("plain")
ROUNDS = 2 * len(NAMES)
SLICES = 3
LANES = 3
"""Each lane has a server and a forkserver of workers of its own; pytest-xdist can spread the slices."""


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with Lane() as lane:
        yield lane


def selection(part: int = 0, slices: int = 1) -> list[Round]:
    return [plan(SEED, number, NAMES, FAULTS) for number in range(part, ROUNDS, slices)]


@pytest.mark.parametrize("part", range(SLICES))
def test_nothing_is_missing_whatever_breaks(part: int) -> None:
    """When one thing breaks, no job is lost or run twice, no report is missing, and no exit code lies."""
    outcomes: list[Outcome] = []
    rounds = selection(part, SLICES)
    run(rounds, LANES, outcomes.append)
    assert len(outcomes) == len(rounds)
    for outcome in outcomes:
        assert not outcome.wrong, f"{outcome.wrong}\n{outcome.round}\n{outcome.logs}"
        assert (outcome.overrun or 0.0) < TOLERATED_SECONDS, f"{outcome.overrun:.2f} s late\n{outcome.logs}"


def test_everybody_takes_part_in_the_selection() -> None:
    """Every fault is there twice, everybody else at least twice, and an outage has somebody who cleans up meanwhile."""
    rounds = selection()
    assert Counter(each.fault for each in rounds) == dict.fromkeys(NAMES, 2)
    beside = Counter(each.actor for each in rounds)
    assert min(beside[actor] for actor in ACTORS) >= 2, beside
    assert {each.actor for each in rounds if each.fault == "outage"} <= {"scrape", "dashboard", "stock"}


def test_the_books_tell_a_lost_job_from_a_found_one(lane: Lane) -> None:
    """A lost job is found missing: the stock worker loses jobs when it is killed."""
    lost: list[str] = []
    for number in range(12):
        lost += play(lane, plan(SEED, number, ["kill_both"], FAULTS), stock=True).lost
        if lost:
            break
    assert lost


def test_a_failure_that_the_fault_does_not_mean_is_wrong(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails is wrong unless the fault names that very failure: here the name is taken away."""
    fault = FAULTS["kill_horse"]
    assert fault.may_fail
    monkeypatch.setitem(FAULTS, fault.name, replace(fault, may_fail=(), modes=("one queue",), actors=("nobody",)))
    failed: list[str] = []
    for number in range(12):
        failed += play(lane, plan(SEED, number, [fault.name], FAULTS)).failed
        if failed:
            break
    assert "Work-horse terminated unexpectedly; waitpid returned 9" in failed[0]


def test_an_exit_code_that_is_not_the_reports_is_wrong(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose report says 0 and whose process ends with 3 is noticed."""
    lie = {"GRACEFUL_EXIT_HOOKS": ["tests.chaos.jobs.lying_hook"]}
    fault = replace(FAULTS["bad_hooks"], settings=lambda rng: lie, modes=("one queue",), actors=("nobody",))
    monkeypatch.setitem(FAULTS, fault.name, fault)
    outcome = play(lane, plan(SEED, 0, [fault.name], FAULTS))
    assert len(outcome.codes) == 1, outcome.wrong
    assert "exit code 3, its report says 0" in outcome.codes[0]


def test_the_ledger_sees_a_job_that_runs_twice_at_once(tmp_path: Path) -> None:
    """A job that is started while its first process lives runs twice at once; one whose process has ended does not."""
    ledger = Ledger(tmp_path / "ledger")
    source = "import os, sys; from tests.chaos.ledger import Ledger; Ledger.of_process().note('start', sys.argv[1]);"
    environ = {**os.environ, "CHAOS_LEDGER": str(ledger.path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", source, "over"], env=environ, check=True)
    command = [sys.executable, "-c", f"{source} print(flush=True); sys.stdin.read()", "running"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        ledger.note("start", "over")
        ledger.note("start", "running")
        process.communicate()
    assert [line.job for line in ledger.lines() if line.what == "twice"] == ["running"]
