"""Steps of a job: each is executed until it has finished, and not again."""

from __future__ import annotations

from typing import Any

import pytest

from graceful import step
from graceful.exceptions import CursorMismatch
from graceful.jobs import checkpoint, resumable, resume_state
from graceful.testing import Worker


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_finished_step_is_skipped(worker: Worker) -> None:
    """The next run gets the saved result, and executes only what had not finished."""
    calls: list[str] = []

    def job(broken: bool) -> Any:
        first = step("first")(lambda: calls.append("first") or {"id": (1, 2)})()

        @step("second")
        def second(value: Any, *, more: int) -> Any:
            """What it does."""
            calls.append("second")
            if broken:
                raise OSError
            return [value, more]

        assert (second.__name__, second.__doc__) == ("second", "What it does.")
        return second(first, more=3)

    with pytest.raises(OSError), worker.run():
        job(broken=True)
    assert calls == ["first", "second"]
    with worker.run() as run:
        assert job(broken=False) == [{"id": [1, 2]}, 3]
    assert run.finished
    assert calls == ["first", "second", "second"]
    with worker.run():
        job(broken=False)
    assert calls[3:] == ["first", "second"], "the job had succeeded: nothing of it is left"


def test_a_result_is_the_same_in_each_run(worker: Worker) -> None:
    """As JSON has it, in the first run too; None is a result."""

    def job() -> list[Any]:
        return [step("pair")(lambda: (1, 2))(), step("none")(lambda: calls.append(1))()]

    calls: list[int] = []
    with pytest.raises(OSError), worker.run():  # noqa: PT012
        assert job() == [[1, 2], None]
        raise OSError
    with worker.run():
        assert job() == [[1, 2], None]
    assert calls == [1]


def test_a_shutdown_between_two_steps(worker: Worker) -> None:
    """A job is interrupted before a step, never between a step's end and its saving."""
    calls: list[str] = []

    def job() -> None:
        for name in "abc":
            step(name)(calls.append)(name)

    with worker.shutdown_after(items=2) as run:
        job()
    assert (run.interrupted, calls) == (True, ["a", "b"])
    with worker.run() as run:
        job()
    assert (run.finished, calls) == (True, ["a", "b", "c"])


def test_steps_of_an_item(worker: Worker) -> None:
    """A step within an item belongs to it: skipped when the item is repeated, executed for the next item."""
    charged: list[str] = []
    sent: list[str] = []

    def job() -> None:
        for item in resumable(["x", "y"]):
            step("charge")(charged.append)(item)
            if item == "y" and charged.count("y") == 1 and not broken:
                broken.append(1)
                raise OSError
            sent.append(item)

    broken: list[int] = []
    with pytest.raises(OSError), worker.run():
        job()
    with worker.run():
        job()
    assert (charged, sent) == (["x", "y"], ["x", "y"])


def test_a_checkpoint_and_a_loop_within_a_step(worker: Worker) -> None:
    """A step that was cut off goes on where its own checkpoint or loop was; they are saved as outside a step."""
    seen: list[int] = []

    def work() -> int:
        state = resume_state(default=0)
        checkpoint(state + 1)
        for number in resumable(range(4)):
            seen.append(number)
            if len(seen) == 2:
                raise OSError
        return int(state)

    def job() -> int:
        return step("work")(work)()

    with pytest.raises(OSError), worker.run():
        job()
    with worker.run():
        assert job() == 1
    assert seen == [0, 1, 1, 2, 3]


def test_names(worker: Worker) -> None:
    """Errors: two of one name, one that was a loop, one that is no text, a result that JSON cannot represent."""
    with worker.run(), pytest.raises(ValueError, match="two loops or steps of this job are called 'a'"):  # noqa: PT012
        step("a")(int)()
        step("a")(int)()
    with pytest.raises(OSError), worker.run():  # noqa: PT012
        list(resumable(range(3), name="b"))
        raise OSError
    with worker.run(), pytest.raises(CursorMismatch, match="'b' is now a step, but what was saved under this name is"):
        step("b")(int)()
    with worker.run(), pytest.raises(TypeError, match="step 'c' returned what JSON cannot represent"):
        step("c")(object)()
    with pytest.raises(TypeError, match='a step has a name: @step\\("name"\\)'):
        step(int)  # type: ignore[arg-type]


def test_outside_a_worker() -> None:
    """It is a function call: nothing is saved, no name is checked, and the value is what the function returned."""
    assert [step("a")(lambda: (1,))() for _ in range(2)] == [(1,), (1,)]


def test_progress_is_that_of_loops(worker: Worker) -> None:
    """A step is no loop: it has no place in the job's progress."""
    with pytest.raises(OSError), worker.run():  # noqa: PT012
        for _ in resumable(range(3)):
            step("a")(int)()
            step("b")(int)()
            raise OSError
    assert [each.name for each in worker.progress] == ["default"]
