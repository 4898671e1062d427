"""The protocol, explored: small worlds to their last state, and mutants that they must find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue

from tests.model import cuts, mutants, replay, worlds
from tests.model.classified import CLASSIFIED
from tests.model.engine import Runtime
from tests.model.explorer import Explorer, Plan, laboratory
from tests.support import jobs
from tests.support.server import Server


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with Server(unix_socket=True) as server, laboratory(server.client()) as runtime:
        yield runtime


def _trace(plan: Plan, runtime: Runtime) -> str:
    result = Explorer(runtime, plan).explore()
    assert result.closed or result.broken
    return "\n".join([f"{result.broken}: {result.detail}", *result.trace]) if result.broken else ""


@pytest.mark.parametrize("plan", worlds.QUICK, ids=lambda plan: plan.name)
def test_every_order_of_events(plan: Plan, runtime: Runtime) -> None:
    """In whatever order things happen in a small world, and wherever a process dies, every invariant holds."""
    assert _trace(plan, runtime) == ""


@pytest.mark.parametrize("sample", mutants.SAMPLE, ids=lambda sample: f"{sample[0]}: {sample[1]}")
def test_a_script_without_one_of_its_lines_is_found_out(sample: tuple[str, str], runtime: Runtime) -> None:
    """The model sees it when a line of a script is taken away."""
    mutant = next(each for each in mutants.mutants(sample[0]) if each.what.startswith(sample[1]))
    assert mutants.try_out(runtime, mutant, worlds.QUICK, most=400).killed_by


def test_each_classified_mutant_is_one_and_its_test_exists() -> None:
    """No entry outlives its line of a script, or the test that is named as the one that finds it."""
    made = {mutant.key for script in mutants.PROTOCOL for mutant in mutants.mutants(script)}
    assert set(CLASSIFIED) <= made
    texts = "".join(path.read_text() for path in (Path(__file__).parents[1] / "integration").glob("test_*.py"))
    named = [name for reason in CLASSIFIED.values() for name in re.findall(r"test_\w+", reason)]
    assert [name for name in named if f"def {name}(" not in texts] == []
    assert len(named) == len(CLASSIFIED) - 1, "one is no mutant at all"


def test_a_script_that_fails_has_changed_nothing(runtime: Runtime) -> None:
    """Whatever type a key has, and whatever stands in a job's hash, a script does all of its work or none."""
    assert list(cuts.all_or_nothing(runtime, cuts.calls(runtime, worlds.CUT))) == []


def test_a_walk_is_the_same_for_the_same_seed(runtime: Runtime) -> None:
    """A failure that random walks found can be looked at again."""
    plan = worlds.walked(worlds.QUICK[0])
    first, second = (Explorer(runtime, plan).walk(5) for _ in range(2))
    assert (first.broken, first.transitions, first.depth) == (second.broken, second.transitions, second.depth)
    assert first.transitions > 1


def test_a_dump_of_a_server_is_judged(runtime: Runtime, tmp_path: Path) -> None:
    """A keyspace that the chaos suite wrote down is held against the same invariants."""
    with Server(unix_socket=True) as server:
        client = server.client()
        Queue("default", connection=client).enqueue(jobs.quick, job_id="a")
        replay.dump(client, ["default"], tmp_path / "good.json")
        assert replay.broken(tmp_path / "good.json") == []
        client.delete("rq:queue:default")
        replay.dump(client, ["default"], tmp_path / "bad.json")
        assert replay.broken(tmp_path / "bad.json") == [("one_place", "a is in no place")]
