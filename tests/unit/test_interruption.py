"""Where a job may be interrupted, and where it may not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from graceful.core.deadline import Deadline
from graceful.core.limits import Limits
from graceful.exceptions import JobInterrupted, JobMemoryExceeded
from graceful.jobs import interruption
from graceful.jobs.interruption import Guard
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.resume import clock


@pytest.fixture
def guard() -> Iterator[Guard]:
    """The guard of a running job, with the interrupt signal going to it."""
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
    """The interruption passes ``except Exception``, runs ``finally`` blocks, and records the job's stack."""
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
    """Before and after the job's own code, as in callbacks, an interrupt signal raises nothing."""
    interrupt(guard)
    guard.memory.interrupt = False
    assert guard.run(lambda: 7) == 7
    interrupt(guard)
    assert not guard.interrupted


def test_a_horse_that_was_told_before_it_came_so_far_is_interrupted_at_once(guard: Guard) -> None:
    """An interruption requested before the job begins is raised at its beginning; none of its code runs."""
    guard.memory.interrupt = True
    ran = []
    with pytest.raises(JobInterrupted):
        guard.run(lambda: ran.append(1))
    assert ran == []


def test_the_signal_alone_interrupts_nothing(guard: Guard) -> None:
    """SIGURG without the flag in the shared memory, as from a socket with urgent data, is ignored."""

    def job() -> int:
        os.kill(os.getpid(), signal.SIGURG)
        return 7

    assert guard.run(job) == 7


def test_a_job_that_swallows_the_interruption_and_ends_has_finished(guard: Guard) -> None:
    """A job that swallows the interruption and returns has finished, and does not count as interrupted."""

    def job() -> str:
        try:
            interrupt(guard)
        except BaseException:
            pass
        return "done"

    assert guard.run(job) == "done"
    assert not guard.interrupted


def test_a_job_that_fails_in_its_own_clean_up_counts_as_interrupted(guard: Guard) -> None:
    """A job whose ``finally`` block raises during an interruption counts as interrupted, not as failed."""

    def job() -> None:
        try:
            interrupt(guard)
        finally:
            raise ValueError("of the clean-up")

    with pytest.raises(ValueError, match="clean-up"):
        guard.run(job)
    assert guard.interrupted


def test_it_is_raised_once(guard: Guard) -> None:
    """The interruption is raised once, however often the signal comes."""
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
    """An interruption within nested ``uninterruptible`` blocks is raised at the end of the outermost one."""
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
    """``uninterruptible`` as a decorator defers the interruption to the end of the function."""
    steps = []

    @clock.uninterruptible()
    def step() -> None:
        interrupt(guard)
        steps.append("whole")

    with pytest.raises(JobInterrupted):
        guard.run(step)
    assert steps == ["whole"]


def test_a_block_in_a_thread_holds_it_back_for_the_job(guard: Guard) -> None:
    """An ``uninterruptible`` block in another thread defers the interruption of the main thread until it ends."""
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
    """An error in an ``uninterruptible`` block stays in the exception chain of the interruption."""

    def job() -> None:
        with clock.uninterruptible():
            interrupt(guard)
            raise ValueError("inside")

    with pytest.raises((JobInterrupted, ValueError)) as caught:
        guard.run(job)
    assert "inside" in f"{caught.value} {caught.value.__context__}"


def test_what_a_job_may_ask(guard: Guard) -> None:
    """``shutdown_requested`` and ``time_left`` follow the announced soft limit; ``time_left`` is never negative."""
    assert not clock.shutdown_requested()
    assert clock.time_left() is None
    soft = Deadline.after(5)
    guard.memory.announce(Limits(soft, Deadline.after(6), Deadline.after(7)))
    assert clock.shutdown_requested()
    assert 4 < (clock.time_left() or 0) <= 5
    guard.memory.announce(Limits(Deadline.after(-1), Deadline.after(6), Deadline.after(7)))
    assert clock.time_left() == 0.0


def test_outside_a_worker_no_shutdown_comes() -> None:
    """Outside a worker no shutdown is ever requested, and ``uninterruptible`` does nothing."""
    assert interruption.guard is None
    assert not clock.shutdown_requested()
    assert clock.time_left() is None
    with clock.uninterruptible():
        assert clock.uninterruptible()(lambda: 3)() == 3


class AtStep:
    """Interrupts at the n-th bytecode that is executed in the guard's code, in contextlib or in this module.

    Signals come between bytecodes; each place is tried, also those at which this CPython would not look for one.
    """

    def __init__(self, guard: Guard, step: int) -> None:
        self.guard = guard
        self.left = step

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.endswith(("interruption.py", "contextlib.py", "test_interruption.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                self.guard.memory.interrupt = True
                self.guard.on_signal(signal.SIGURG, frame)
        return self


def at_every_step(scenario: Callable[[Guard], None], check: Callable[[Guard, str], None]) -> int:
    """Run a job once for each bytecode, interrupted there; returns how many there were."""
    step = 0
    while True:
        step += 1
        memory = SharedMemory()
        guard = Guard(memory)
        stager = AtStep(guard, step)

        def job(guard: Guard = guard) -> str:
            scenario(guard)
            return "done"

        old = sys.gettrace()
        # Python 3.12 checks only at settrace() whether a frame wants opcode events.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(stager)
        try:
            result = guard.run(job)
        except JobInterrupted:
            result = "interrupted"
        finally:
            sys.settrace(old)
        try:
            check(guard, result)
            assert memory.stage is Stage.STORING
            assert guard.interrupted == (result == "interrupted")
            memory.interrupt = True
            guard.on_signal(signal.SIGURG, None)  # Callbacks and results are not interrupted.
            with guard.shield():
                pass
        except BaseException as error:
            error.add_note(f"interrupted at step {step}")
            raise
        finally:
            memory.close()
        if stager.left > 0:
            return step


@pytest.fixture
def own_trace() -> Iterator[None]:
    """Coverage's trace function, where there is one, comes back after the test."""
    old = sys.gettrace()
    yield
    sys.settrace(old)


@pytest.mark.usefixtures("own_trace")
def test_wherever_the_interruption_comes_it_is_raised_in_the_job_or_not_at_all() -> None:
    """Interrupted at any bytecode, a job returns its result or is interrupted; nothing is raised afterwards."""
    outcomes = set()
    steps = at_every_step(lambda guard: None, lambda guard, result: outcomes.add(result))
    assert outcomes == {"done", "interrupted"}
    assert steps > 30


@pytest.mark.usefixtures("own_trace")
def test_wherever_the_interruption_comes_a_shielded_block_is_whole() -> None:
    """Interrupted at any bytecode, an ``uninterruptible`` block runs as a whole or not at all."""
    log: list[str] = []

    def scenario(guard: Guard) -> None:
        del log[:]
        with guard.shield():
            log.append("in")
            with guard.shield():
                log.append("deeper in")
            log.append("out")

    def check(guard: Guard, result: str) -> None:
        assert log in ([], ["in", "deeper in", "out"])
        assert log or result == "interrupted"

    assert at_every_step(scenario, check) > 100


@pytest.mark.usefixtures("own_trace")
def test_wherever_the_interruption_comes_an_error_of_the_job_leaves_the_gate_shut() -> None:
    """Interrupted at any bytecode, a job that fails ends its interruptible part: nothing is raised afterwards."""

    def scenario(guard: Guard) -> None:
        raise KeyError

    def job_that_fails(step: int) -> int:
        memory = SharedMemory()
        guard = Guard(memory)
        stager = AtStep(guard, step)
        # Python 3.12 checks only at settrace() whether a frame wants opcode events.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(stager)
        try:
            guard.run(lambda: scenario(guard))
        except (JobInterrupted, KeyError):
            pass
        finally:
            sys.settrace(None)
        assert memory.stage is Stage.STORING
        memory.interrupt = True
        guard.on_signal(signal.SIGURG, None)
        memory.close()
        return stager.left

    step = 1
    while job_that_fails(step) <= 0:
        step += 1
    assert step > 20


def test_many_threads_enter_and_leave(guard: Guard) -> None:
    """Threads that enter and leave blocks concurrently leave the job interruptible."""

    def in_thread() -> None:
        for _ in range(2000):
            with clock.uninterruptible():
                pass

    def job() -> None:
        threads = [threading.Thread(target=in_thread) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not guard._shields
        interrupt(guard)

    with pytest.raises(JobInterrupted):
        guard.run(job)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_that_the_job_forks_is_not_the_job(guard: Guard) -> None:
    """A process that the job forks is ``elsewhere``: it is not interrupted and saves no cursors."""

    def job() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if guard.elsewhere else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert guard.run(job) == 0
    assert not guard.elsewhere


def test_asking_for_a_shutdown_is_cheap(guard: Guard) -> None:
    """``shutdown_requested`` takes less than a microsecond (about 0.1 on a machine of 2024)."""
    seconds = min(timeit.repeat(clock.shutdown_requested, number=20_000, repeat=10)) / 20_000
    assert seconds < 1e-6


# -- too much memory --------------------------------------------------------------------------------------------------


def exceed(guard: Guard) -> None:
    """What the worker does when the job has too much memory."""
    guard.memory.function = "shop.jobs.rebuild"
    guard.memory.exceeded = (812 * 2**20, 500 * 2**20)
    os.kill(os.getpid(), signal.SIGURG)


def test_a_job_with_too_much_memory_is_told_how_much(guard: Guard) -> None:
    """The error names function, size and limit, passes ``except Exception``, and is no interruption."""

    def job() -> None:
        try:
            exceed(guard)
        except Exception:
            pass

    with pytest.raises(JobMemoryExceeded) as raised:
        guard.run(job)
    assert str(raised.value) == "shop.jobs.rebuild has 812 MB of memory, GRACEFUL_JOB_MEMORY allows 500 MB"
    assert not guard.interrupted


def test_a_job_that_fails_for_its_memory_is_not_interrupted_on_the_way(guard: Guard) -> None:
    """A soft limit that comes while it unwinds does not make an interrupted job of it, which would be requeued."""

    def job() -> None:
        try:
            exceed(guard)
        finally:
            interrupt(guard)
            guard.memory.announce(Limits(Deadline(0), Deadline(0), Deadline(0)))
            guard.check()
            steps.append("unwound")

    steps: list[str] = []
    with pytest.raises(JobMemoryExceeded):
        guard.run(job)
    assert steps == ["unwound"]
    assert not guard.interrupted


def test_an_interrupted_job_does_not_fail_for_its_memory(guard: Guard) -> None:
    """A job that unwinds for a shutdown is requeued, however much memory it is found to have then."""

    def job() -> None:
        try:
            interrupt(guard)
        finally:
            exceed(guard)

    with pytest.raises(JobInterrupted):
        guard.run(job)
    assert guard.interrupted


def test_too_much_memory_waits_for_the_end_of_a_shield(guard: Guard) -> None:
    """It is raised where an interruption would be: not in an ``uninterruptible`` block, but at its end."""
    steps = []

    def job() -> None:
        with guard.shield():
            exceed(guard)
            steps.append("went on")

    with pytest.raises(JobMemoryExceeded):
        guard.run(job)
    assert steps == ["went on"]


def test_a_result_is_kept_though_the_job_had_too_much_memory(guard: Guard) -> None:
    """A job that caught the error and returned has finished, and the next job begins anew."""

    def job() -> str:
        try:
            exceed(guard)
        except JobMemoryExceeded:
            pass
        return "done"

    assert guard.run(job) == "done"
    guard.memory.reset()
    assert (guard.memory.exceeded, guard.memory.raises) == (None, False)


def test_too_much_memory_before_the_job_began(guard: Guard) -> None:
    """A process that is too large before its job begins fails it at once: no signal comes again."""
    guard.memory.exceeded = (2, 1)
    with pytest.raises(JobMemoryExceeded):
        guard.run(lambda: None)
