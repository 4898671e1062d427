"""Where a job may be interrupted, and where it may not."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from graceful.core.deadline import Deadline
from graceful.core.limits import Limits
from graceful.exceptions import JobInterrupted
from graceful.jobs import interruption
from graceful.jobs.interruption import Guard
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.resume import clock


@pytest.fixture
def guard() -> Iterator[Guard]:
    """The guard of a job in hand, with the interrupt signal going to it."""
    memory = SharedMemory()
    guard = interruption.install(memory)
    assert guard is not None
    old = signal.signal(signal.SIGURG, guard.on_signal)
    yield guard
    signal.signal(signal.SIGURG, old)
    interruption.install(None)
    memory.close()


def interrupt(guard: Guard) -> None:
    """What the worker does at the soft limit."""
    guard.memory.interrupt = True
    os.kill(os.getpid(), signal.SIGURG)


def test_an_interruption_is_raised_in_the_job(guard: Guard) -> None:
    """A job would run on until it is killed, and its ``finally`` blocks would not run."""
    steps = []

    def job() -> None:
        try:
            interrupt(guard)
            steps.append("went on")
        except Exception:
            steps.append("swallowed by except Exception")
        finally:
            steps.append("finally")

    with pytest.raises(JobInterrupted, match="shutting down"):
        guard.run(job)
    assert steps == ["finally"]
    assert guard.interrupted
    assert guard.memory.stage is Stage.STORING
    stack = guard.memory.read_stack()
    assert "in job" in stack
    assert "test_an_interruption_is_raised" not in stack, "the frames of the worker are of no interest"


def test_outside_the_jobs_own_code_nothing_is_raised(guard: Guard) -> None:
    """A callback, or the storing of a result, would be interrupted: the job would be run twice."""
    interrupt(guard)
    guard.memory.interrupt = False
    assert guard.run(lambda: 7) == 7
    interrupt(guard)
    assert not guard.interrupted


def test_a_horse_that_was_told_before_it_came_so_far_is_interrupted_at_once(guard: Guard) -> None:
    """A signal that comes while the horse is starting would be lost."""
    guard.memory.interrupt = True
    ran = []
    with pytest.raises(JobInterrupted):
        guard.run(lambda: ran.append(1))
    assert ran == []


def test_the_signal_alone_interrupts_nothing(guard: Guard) -> None:
    """SIGURG also comes from sockets, with urgent data."""

    def job() -> int:
        os.kill(os.getpid(), signal.SIGURG)
        return 7

    assert guard.run(job) == 7


def test_a_job_that_swallows_the_interruption_and_ends_has_finished(guard: Guard) -> None:
    """A job that did its work would be run again."""

    def job() -> str:
        try:
            interrupt(guard)
        except BaseException:
            pass
        return "done"

    assert guard.run(job) == "done"
    assert not guard.interrupted


def test_a_job_that_fails_in_its_own_clean_up_counts_as_interrupted(guard: Guard) -> None:
    """A ``finally`` block that raises would turn an interruption into a failure, with its callback and its retry."""

    def job() -> None:
        try:
            interrupt(guard)
        finally:
            raise ValueError("of the clean-up")

    with pytest.raises(ValueError, match="clean-up"):
        guard.run(job)
    assert guard.interrupted


def test_it_is_raised_once(guard: Guard) -> None:
    """Clean-up that takes a while would be interrupted again and again."""
    caught = []

    def job() -> int:
        for _ in range(3):
            try:
                interrupt(guard)
            except JobInterrupted as error:
                caught.append(error)
        return 7

    assert guard.run(job) == 7
    assert len(caught) == 1


def test_a_block_holds_it_back(guard: Guard) -> None:
    """A payment would be torn in the middle."""
    steps = []

    def job() -> None:
        with clock.uninterruptible():
            with clock.uninterruptible():
                interrupt(guard)
                steps.append("inner")
            steps.append("outer")
        steps.append("after")

    with pytest.raises(JobInterrupted):
        guard.run(job)
    assert steps == ["inner", "outer"]
    assert guard.interrupted


def test_a_decorator_holds_it_back_too(guard: Guard) -> None:
    """``uninterruptible`` is documented as both."""
    steps = []

    @clock.uninterruptible()
    def step() -> None:
        interrupt(guard)
        steps.append("whole")

    with pytest.raises(JobInterrupted):
        guard.run(step)
    assert steps == ["whole"]


def test_a_block_in_a_thread_holds_it_back_for_the_job(guard: Guard) -> None:
    """The main thread would be torn out of its wait for a thread that must not be left alone."""
    entered, leave, steps = threading.Event(), threading.Event(), []

    def work() -> None:
        with clock.uninterruptible():
            entered.set()
            leave.wait(5)
            steps.append("whole")

    def job() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(5)
        try:
            interrupt(guard)
            steps.append("held back")
            leave.set()
            # The end of the block lets it through, wherever the main thread then is.
            while True:
                thread.join(0.01)
        finally:
            thread.join(5)

    with pytest.raises(JobInterrupted):
        guard.run(job)
    assert steps == ["held back", "whole"]


def test_an_error_in_a_block_is_not_lost(guard: Guard) -> None:
    """A failure in an uninterruptible block would vanish behind the interruption."""

    def job() -> None:
        with clock.uninterruptible():
            interrupt(guard)
            raise ValueError("inside")

    with pytest.raises((JobInterrupted, ValueError)) as caught:
        guard.run(job)
    assert "inside" in f"{caught.value} {caught.value.__context__}"


def test_what_a_job_may_ask(guard: Guard) -> None:
    """A job could not come to a good end by itself."""
    assert not clock.shutdown_requested()
    assert clock.time_left() is None
    soft = Deadline.after(5)
    guard.memory.announce(Limits(soft, Deadline.after(6), Deadline.after(7)))
    assert clock.shutdown_requested()
    assert 4 < (clock.time_left() or 0) <= 5
    guard.memory.announce(Limits(Deadline.after(-1), Deadline.after(6), Deadline.after(7)))
    assert clock.time_left() == 0.0


def test_outside_a_worker_no_shutdown_comes() -> None:
    """Job code could not be called in a test, a shell or a view."""
    assert interruption.guard is None
    assert not clock.shutdown_requested()
    assert clock.time_left() is None
    with clock.uninterruptible():
        pass


def test_at_every_instant_the_job_is_either_done_or_interrupted() -> None:
    """An interruption that comes while the job is beginning or ending would double its result, or lose it.

    It comes after each single step (opcode) of the guard and of the job in turn.
    """
    old = signal.getsignal(signal.SIGURG)
    memory = SharedMemory()
    outcomes = set()
    try:
        for after in itertools.count(1):
            memory.reset()
            guard = Guard(memory)
            signal.signal(signal.SIGURG, guard.on_signal)
            came, result = _run_and_interrupt(guard, after)
            if not came:
                break
            outcomes.add(result)
            # None: interrupted. Otherwise the worker would put a job back that has its result, or fail this one.
            assert guard.interrupted == (result is None), f"after {after} steps"
            # From here on there are callbacks, and the result is stored: nothing may be raised any more.
            interrupt(guard)
            with guard.shield():
                pass
            assert memory.stage is Stage.STORING
    finally:
        signal.signal(signal.SIGURG, old)
        memory.close()
    assert after > 50
    assert outcomes == {None, 3}


def _run_and_interrupt(guard: Guard, after: int) -> tuple[bool, int | None]:
    """Run a job that is interrupted after so many steps: whether it came so far, and the job's result."""
    steps = done = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename not in (interruption.__file__, __file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps += 1
            if steps == after:
                sys.settrace(None)
                interrupt(guard)
                return None
        return trace

    def job() -> int:
        nonlocal done
        for _ in range(3):
            done += 1
        return done

    result: int | None = None
    old = sys.gettrace()
    # Python 3.12 looks at the moment of settrace() whether any frame wants to hear of single opcodes.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        result = guard.run(job)
    except JobInterrupted:
        pass
    finally:
        sys.settrace(old)
    return steps >= after, result
