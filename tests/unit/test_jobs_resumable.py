"""Loops over sequences, files and other iterables: interrupted, and gone on with."""

from __future__ import annotations

import datetime
import io
import json
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile, File

from graceful.exceptions import CursorMismatch, JobInterrupted
from graceful.jobs import checkpoint, interruption, resumable, resume_state, uninterruptible
from graceful.jobs.shared_memory import SharedMemory
from graceful.testing import Worker, shutdown_after

LETTERS = list("abcdefghij")
TEXT = "".join(f"{number} ä€😀 {'x' * (number % 7)}\n" for number in range(2500)) + "no newline at the end"


@pytest.fixture
def worker() -> Worker:
    return Worker()


def in_pieces(worker: Worker, make: Callable[[], Iterable[Any]], sizes: Iterable[int], **options: Any) -> list[Any]:
    """What a job hands out over many interruptions, each after so many items, and a last run without one."""
    out: list[Any] = []
    for size in sizes:
        with worker.shutdown_after(items=size) as run:
            for item in resumable(make(), **options):
                out.append(item)
        if run.finished:
            return out
    with worker.run() as run:
        for item in resumable(make(), **options):
            out.append(item)
    assert run.finished
    return out


def lines_of(path: Path, **options: Any) -> Callable[[], Any]:
    return lambda: path.open(**options)


@pytest.mark.parametrize("sizes", [[0], [1], [3], [3, 0, 4], [10], [1] * 9])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LETTERS,
        lambda: tuple(LETTERS),
        lambda: "abcdefghij",
        lambda: iter(LETTERS),
        lambda: (letter for letter in LETTERS),
        lambda: deque(LETTERS),
        lambda: dict.fromkeys(LETTERS),
        lambda: io.StringIO("\n".join(LETTERS)),
        lambda: io.BytesIO(b"\n".join(letter.encode() for letter in LETTERS)),
    ],
)
def test_each_item_is_handed_out_once_however_often_it_is_interrupted(
    worker: Worker, make: Callable[[], Iterable[Any]], sizes: list[int]
) -> None:
    """Each item is yielded once, however often the job is interrupted."""
    out = [item.decode() if isinstance(item, bytes) else item for item in in_pieces(worker, make, sizes)]
    assert [item.strip() for item in out] == LETTERS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("newline", [None, "", "\n"])
def test_a_text_file_goes_on_at_the_line_in_any_encoding(
    worker: Worker, tmp_path: Path, encoding: str, newline: str | None
) -> None:
    """A text file continues at the right line in any encoding."""
    path = tmp_path / "lines"
    path.write_text(TEXT.replace("3\n", "3\r\n"), encoding=encoding, newline="")
    make = lines_of(path, encoding=encoding, newline=newline)
    assert in_pieces(worker, make, [0, 1, 998, 1, 1, 1000, 7]) == list(make())


def test_a_binary_file_goes_on_at_the_line(worker: Worker, tmp_path: Path) -> None:
    """A binary file continues at the right line."""
    path = tmp_path / "lines"
    path.write_text(TEXT)
    assert in_pieces(worker, lines_of(path, mode="rb"), [0, 1, 999, 1, 1001]) == TEXT.encode().splitlines(keepends=True)


def test_a_header_that_was_read_before_is_not_handed_out(worker: Worker, tmp_path: Path) -> None:
    """A loop over a file begins at the file's current position."""
    path = tmp_path / "table.csv"
    path.write_text("head\n1\n2\n3\n")

    def below_head() -> Any:
        file = path.open()
        assert file.readline() == "head\n"
        return file

    assert in_pieces(worker, below_head, [2]) == ["1\n", "2\n", "3\n"]


@pytest.mark.parametrize("wrap", [lambda raw: ContentFile(raw.read()), File])
def test_files_of_django_and_of_tempfile_are_files(worker: Worker, wrap: Callable[[Any], Any]) -> None:
    """Django's and tempfile's file wrappers are traversed by offset."""
    with tempfile.NamedTemporaryFile() as raw:
        raw.write(b"a\nb\nc\n")

        def make() -> Any:
            raw.seek(0)
            return wrap(raw)

        assert in_pieces(worker, make, [1, 1]) == [b"a\n", b"b\n", b"c\n"]
        assert in_pieces(Worker(), lambda: (raw.seek(0), raw)[1], [2]) == [b"a\n", b"b\n", b"c\n"]


def test_a_file_that_was_cut_short_is_an_error(worker: Worker, tmp_path: Path) -> None:
    """A file shorter than the cursor raises CursorMismatch."""
    path = tmp_path / "lines"
    path.write_text("a\nb\nc\n")
    with worker.shutdown_after(items=2):
        for _ in resumable(path.open()):
            pass
    path.write_text("a\n")
    with worker.run(), pytest.raises(CursorMismatch, match="shorter"):
        next(resumable(path.open()))


def test_an_item_is_finished_when_the_next_is_asked_for(worker: Worker) -> None:
    """The item in which the job fails is repeated by its retry."""
    out: list[str] = []

    def job(stumble: bool) -> None:
        for letter in resumable(LETTERS):
            if stumble and letter == "d":
                raise OSError
            out.append(letter)

    with pytest.raises(OSError), worker.run():
        job(True)
    with worker.run():
        job(False)
    assert out == LETTERS


def test_an_item_that_is_cut_in_the_middle_is_repeated_and_no_other(worker: Worker) -> None:
    """An item interrupted at the soft limit is repeated, and no other one."""
    out: list[str] = []

    def job(cut: bool) -> None:
        for letter in resumable(LETTERS):
            out.append(letter)
            if cut and letter == "d":
                raise JobInterrupted("time is up")

    with worker.run():
        job(True)
    with worker.run():
        job(False)
    assert out == [*"abcd", *"defghij"]


def test_a_loop_behind_its_last_item_is_not_interrupted(worker: Worker) -> None:
    """A loop is not interrupted after its last item."""
    with worker.shutdown_after(items=len(LETTERS)) as run:
        for _ in resumable(LETTERS):
            pass
    assert run.finished


def test_a_finished_loop_is_not_repeated_when_a_later_one_is_interrupted(worker: Worker) -> None:
    """A finished loop is not repeated when a later one is interrupted."""
    out: list[Any] = []

    def job() -> None:
        for letter in resumable(LETTERS, name="letters"):
            out.append(letter)
        for number in resumable(range(5), name="numbers"):
            out.append(number)

    with worker.shutdown_after(items=12) as run:
        job()
    assert run.interrupted
    with worker.shutdown_after(items=1) as run:
        job()
    assert run.interrupted
    with worker.run():
        job()
    assert out == [*LETTERS, 0, 1, 2, 3, 4]


def test_a_job_that_succeeded_starts_over(worker: Worker) -> None:
    """After success the cursors are removed, and the job starts over."""
    for _ in range(2):
        with worker.run():
            assert list(resumable(LETTERS)) == LETTERS
    assert worker.progress == ()


@pytest.mark.parametrize("items", range(12))
def test_loops_within_items_belong_to_their_item(worker: Worker, items: int) -> None:
    """A loop within an item starts over for each item."""
    out: list[str] = []

    def job() -> None:
        for outer in resumable("abc", name="outer"):
            for inner in resumable(range(3), name="inner"):
                out.append(f"{outer}{inner}")

    with worker.shutdown_after(items=items):
        job()
    with worker.run():
        job()
    assert out == [f"{outer}{inner}" for outer in "abc" for inner in range(3)]


def test_a_cursor_within_an_item_does_not_outlive_it(worker: Worker) -> None:
    """The cursor of an inner loop is dropped when its item is finished."""
    out: list[str] = []

    def job(leave_out: str) -> None:
        for outer in resumable("ab", name="outer"):
            if outer != leave_out:
                for inner in resumable(range(3), name="inner"):
                    out.append(f"{outer}{inner}")

    with worker.shutdown_after(items=3):
        job("")
    assert out == ["a0", "a1"]
    with worker.run():
        job("a")
    assert out == ["a0", "a1", "b0", "b1", "b2"]


def test_nor_do_the_cursors_within_that_one(worker: Worker) -> None:
    """Cursors of loops nested further are dropped with it."""
    out: list[str] = []

    def job(leave_out: str) -> None:
        for outer in resumable("ab", name="outer"):
            if outer != leave_out:
                for middle in resumable("xy", name="middle"):
                    for inner in resumable(range(2), name="inner"):
                        out.append(f"{outer}{middle}{inner}")

    with worker.shutdown_after(items=3):
        job("")
    assert out == ["ax0"]
    with worker.run():
        job("a")
    assert out == ["ax0", "bx0", "bx1", "by0", "by1"]


def test_loops_side_by_side_keep_their_cursors(worker: Worker) -> None:
    """Parallel loops, as in zip(), keep their own cursors."""
    with worker.shutdown_after(items=4):
        for _ in zip(resumable("abcd", name="letters"), resumable(range(4), name="numbers"), strict=True):
            pass
    # The second loop's item is not finished: zip asks for its next one only when it has one of the first.
    assert [(loop.name, loop.done) for loop in worker.progress] == [("letters", 2), ("numbers", 1)]


def test_two_loops_of_one_name_are_an_error(worker: Worker) -> None:
    """Two loops of one name raise ValueError."""
    with worker.run(), pytest.raises(ValueError, match="two loops or steps of this job are called 'default'"):  # noqa: PT012
        list(resumable("ab"))
        list(resumable("cd"))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (lambda: resumable(LETTERS), lambda: resumable(iter(LETTERS))),
        (lambda: resumable(LETTERS), lambda: resumable(io.StringIO("a\nb\nc"))),
        (lambda: resumable(io.StringIO("a\nb\nc")), lambda: resumable(io.BytesIO(b"a\nb\nc"))),
        (lambda: resumable(LETTERS), lambda: resumable(["a"])),
        (lambda: resumable(iter(LETTERS)), lambda: resumable(iter("a"))),
        (lambda: resumable(LETTERS), lambda: resumable(LETTERS, key=str)),
        (lambda: resumable(LETTERS, key=str), lambda: resumable(LETTERS)),
        (lambda: resumable(iter(LETTERS), key=str), lambda: resumable(iter(LETTERS))),
        (lambda: resumable(LETTERS, key=str), lambda: resumable("xyz", key=str)),
    ],
)
def test_a_cursor_of_another_loop_is_an_error(
    worker: Worker, before: Callable[[], Iterator[Any]], now: Callable[[], Iterator[Any]]
) -> None:
    """A cursor of another kind of loop raises CursorMismatch."""
    with worker.shutdown_after(items=2):
        for _ in before():
            pass
    with worker.run(), pytest.raises(CursorMismatch):
        list(now())


def test_another_name_begins_anew(worker: Worker) -> None:
    """A loop with another name starts over."""
    with worker.shutdown_after(items=2):
        for _ in resumable(LETTERS):
            pass
    with worker.run():
        assert list(resumable(iter(LETTERS), name="anew")) == LETTERS


@pytest.mark.parametrize("kind", [list, iter])
def test_with_a_key_the_place_is_found_though_items_came_and_went(worker: Worker, kind: Callable[[str], Any]) -> None:
    """With ``key=`` the loop continues after the same item though the list has changed."""
    with worker.shutdown_after(items=3):
        for _ in resumable(kind("abcdef"), key=lambda letter: (letter, 1)):
            pass
    with worker.run():
        assert list(resumable(kind("ABabcdefg"), key=lambda letter: (letter, 1))) == [*"defg"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: resumable({1, 2}), "another order in each process"),
        (lambda: resumable(3), "an iterable, got: 3"),  # type: ignore[arg-type]
        (lambda: resumable([1], order_by="id"), "for QuerySets"),
        (lambda: resumable(io.StringIO(), key=str), "by offset"),
        (lambda: resumable([1], save_every=-1), "not be negative, got: -1"),
    ],
)
def test_what_cannot_be_resumed_is_refused_at_the_call(wrong: Callable[[], Any], words: str) -> None:
    """What cannot be resumed is refused at the call, with a reason."""
    with pytest.raises((TypeError, ValueError), match=words):
        wrong()


def test_a_key_that_json_cannot_hold_is_an_error_at_the_first_item(worker: Worker) -> None:
    """A key that JSON cannot represent is an error at the first item."""
    with worker.run(), pytest.raises(TypeError, match="JSON"):
        next(resumable(LETTERS, key=lambda letter: datetime.date(2026, 1, 1)))


def test_no_interruption_in_an_uninterruptible_block(worker: Worker) -> None:
    """A loop in an ``uninterruptible`` block is not interrupted."""
    out: list[str] = []
    with worker.shutdown_after(items=2) as run:
        with uninterruptible():
            for letter in resumable(LETTERS):
                out.append(letter)
        for _ in resumable("xyz", name="after"):
            out.append("never")
    assert out == LETTERS
    assert run.interrupted


def test_a_job_that_would_fail_by_it_is_left_its_time(worker: Worker) -> None:
    """A job with ``on_interrupt("fail")`` is not interrupted between items before the soft limit."""
    with worker.shutdown_after(items=2) as run:
        assert interruption.guard is not None
        interruption.guard.cooperative = False
        assert list(resumable(LETTERS)) == LETTERS
    assert run.finished


def test_a_loop_in_another_thread_is_not_interrupted(worker: Worker) -> None:
    """A loop outside the main thread is not interrupted."""
    out: list[str] = []
    with worker.shutdown_after(items=2) as run:
        thread = threading.Thread(target=lambda: out.extend(resumable(LETTERS)))
        thread.start()
        thread.join()
    assert out == LETTERS
    assert run.finished


class CountingStore:
    """A store that counts its savings."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []
        self.text: str | None = None

    def load(self) -> str | None:
        return self.text

    def save(self, text: str) -> bool:
        self.saved.append(json.loads(text))
        return True

    def clear(self) -> None: ...


def test_the_cursor_is_saved_while_the_loop_runs() -> None:
    """The cursor is saved every ``save_every`` seconds."""
    store = CountingStore()
    before, guard = interruption.guard, interruption.install(SharedMemory(), store)
    assert guard is not None
    try:
        guard.begin()
        list(resumable(LETTERS, save_every=0))
        assert [saved["loops"]["default"]["done"] for saved in store.saved] == [*range(1, 11)]
        store.saved.clear()
        list(resumable(LETTERS, name="rarely"))
        assert [saved["loops"]["rarely"]["finished"] for saved in store.saved] == [True]
    finally:
        guard.end(True)
        interruption.guard = before
        guard.memory.close()


def test_a_run_that_gets_nowhere_saves_nothing(worker: Worker) -> None:
    """A run that finishes no item saves nothing."""
    store = CountingStore()
    worker._store = store  # type: ignore[assignment]

    def job() -> None:
        state = resume_state(default=0)
        checkpoint(state + 1)
        for _ in resumable(LETTERS):
            raise JobInterrupted("time is up")

    with worker.run() as run:
        job()
    assert run.interrupted
    assert len(store.saved) == 1  # The state, which had changed.
    store.text = json.dumps(store.saved[0])
    with worker.run():
        checkpoint(1)
        for _ in resumable(LETTERS):
            raise JobInterrupted("time is up")
    assert len(store.saved) == 1


def test_progress_counts_all_runs(worker: Worker) -> None:
    """Progress includes the items of earlier runs."""
    for _ in range(2):
        with worker.shutdown_after(items=2):
            for _ in resumable(LETTERS, name="letters"):
                pass
    (progress,) = worker.progress
    assert (progress.name, progress.done, progress.total, progress.finished, progress.share) == (
        "letters",
        4,
        10,
        False,
        0.4,
    )


def test_a_state_comes_back_in_the_next_run(worker: Worker) -> None:
    """A state saved by ``checkpoint`` is read by the next run."""

    def job() -> int:
        state = resume_state(default={"at": 0})
        while state["at"] < 5:
            state["at"] += 1
            checkpoint(state)
        return int(state["at"])

    with worker.shutdown_after(items=2) as run:
        job()
    assert run.interrupted
    with worker.run():
        assert resume_state()["at"] == 3
        assert job() == 5
    with worker.run():
        assert resume_state(default="none") == "none"


def test_a_state_within_a_loop_fits_to_its_cursor(worker: Worker) -> None:
    """Within a loop a state is saved together with the loop's cursor."""

    def job(cut_at: int) -> int:
        total = resume_state(name="sum", default=0)
        for number in resumable(range(10)):
            total += number
            checkpoint(total, name="sum")
            if number == cut_at:
                raise OSError
        return int(total)

    with worker.shutdown_after(items=4):
        job(-1)
    assert worker.progress[0].done == 4
    with pytest.raises(OSError), worker.run():
        job(cut_at=6)
    assert worker.progress[0].done == 6
    with worker.run():
        assert job(-1) == 45


def test_a_state_that_json_cannot_hold_is_an_error() -> None:
    """A state that JSON cannot represent is an error at the call."""
    with (
        shutdown_after(items=5),
        pytest.raises(TypeError, match="checkpoint takes a state that JSON can represent, got: <obj"),
    ):
        checkpoint(object())
    # A plain unit test finds it too.
    with pytest.raises(TypeError, match="checkpoint takes"):
        checkpoint(object())


def test_outside_a_worker_all_of_it_works() -> None:
    """Outside a worker ``resumable``, ``checkpoint`` and ``resume_state`` only pass through."""
    checkpoint({"a": 1})
    assert resume_state(default=7) == 7
    for _ in range(2):
        assert list(resumable(LETTERS)) == LETTERS
        assert list(resumable(iter(LETTERS), key=str)) == LETTERS


def test_a_job_makes_room_after_its_max_runtime(worker: Worker) -> None:
    """A loop over its max_runtime ends the run between two items, not before one was finished; the next continues."""
    out: list[str] = []
    for length in range(1, len(LETTERS)):
        with worker.run() as run:
            for letter in resumable(LETTERS, max_runtime=1e-9):
                out.append(letter)
        assert (run.yielded, run.interrupted, run.finished) == (True, True, False)
        assert out == LETTERS[:length]
    with worker.run() as run:
        out += resumable(LETTERS, max_runtime=1e-9)
    assert (run.yielded, run.finished) == (False, True)
    assert out == LETTERS


def test_a_max_runtime_that_is_not_over_changes_nothing(worker: Worker) -> None:
    """Below its max_runtime a loop runs to its end."""
    with worker.run() as run:
        assert list(resumable(LETTERS, max_runtime=3600)) == LETTERS
    assert run.finished


def test_a_loop_within_another_makes_room_too(worker: Worker) -> None:
    """The max_runtime counts from the job's start: an inner loop that begins later is over it at its first item."""
    out: list[tuple[int, str]] = []
    runs = 0
    while True:
        runs += 1
        with worker.run() as run:
            for number in resumable(range(3), name="numbers"):
                for letter in resumable("abc", name="letters", max_runtime=1e-9):
                    out.append((number, letter))
        if run.finished:
            break
        assert run.yielded
    assert out == [(number, letter) for number in range(3) for letter in "abc"]
    assert runs == 7  # After the last letter of a number the next number begins, and its first letter is worked at.


def test_no_room_is_made_where_a_job_must_not_be_cut(worker: Worker) -> None:
    """In an uninterruptible block the loop runs on."""
    with worker.run() as run, uninterruptible():
        assert list(resumable(LETTERS, max_runtime=1e-9)) == LETTERS
    assert run.finished


def test_a_job_that_fails_when_interrupted_makes_no_room(worker: Worker) -> None:
    """A job that must not be started twice is not ended for others."""
    with worker.run() as run:
        assert interruption.guard is not None
        interruption.guard.cooperative = False
        assert list(resumable(LETTERS, max_runtime=1e-9)) == LETTERS
    assert run.finished


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_max_runtime_that_is_no_time(value: float) -> None:
    """A max_runtime that is not above zero is an error of the call, that names it."""
    with pytest.raises(ValueError, match=f"max_runtime must be more than 0 seconds, or None, got: {value!r}"):
        resumable(LETTERS, max_runtime=value)
