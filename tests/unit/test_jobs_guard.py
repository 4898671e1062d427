"""The gate through which a job is interrupted, at every place where a signal can come."""

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
from graceful.exceptions import JobInterrupted
from graceful.jobs import interruption, shutdown_requested, time_left, uninterruptible
from graceful.jobs.interruption import Guard
from graceful.jobs.shared_memory import SharedMemory, Stage

NEVER = 10**9


@pytest.fixture
def guard() -> Iterator[Guard]:
    """The guard of a job in this process."""
    memory = SharedMemory()
    guard = interruption.install(memory)
    assert guard is not None
    yield guard
    interruption.install(None)
    memory.close()


@pytest.fixture
def handler(guard: Guard) -> Iterator[None]:
    """The interrupt signal, handled as in a horse."""
    old = signal.signal(signal.SIGURG, guard.on_signal)
    yield
    signal.signal(signal.SIGURG, old)


def interrupt(guard: Guard) -> None:
    """What a worker does at the soft limit."""
    guard.memory.interrupt = True
    os.kill(os.getpid(), signal.SIGURG)


class AtStep:
    """Interrupts at the n-th bytecode that is executed in the guard's code, in contextlib or in this module.

    Signals come between bytecodes; each place is tried, also those at which this CPython would not look for one.
    """

    def __init__(self, guard: Guard, step: int) -> None:
        self.guard = guard
        self.left = step

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.endswith(("interruption.py", "contextlib.py", "test_jobs_guard.py")):
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
        # Python 3.12 looks for frames that want it only here.
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
    """A result would be lost after the job was done, or a callback be interrupted."""
    outcomes = set()
    steps = at_every_step(lambda guard: None, lambda guard, result: outcomes.add(result))
    assert outcomes == {"done", "interrupted"}
    assert steps > 30


@pytest.mark.usefixtures("own_trace")
def test_wherever_the_interruption_comes_a_shielded_block_is_whole() -> None:
    """A block could be torn while it is entered or left, or stay shielded for ever."""
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
    """The failure callback would be interrupted."""

    def scenario(guard: Guard) -> None:
        raise KeyError

    def job_that_fails(step: int) -> int:
        memory = SharedMemory()
        guard = Guard(memory)
        stager = AtStep(guard, step)
        # Python 3.12 looks for frames that want it only here.
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


@pytest.mark.usefixtures("handler")
def test_the_interruption_is_raised_once(guard: Guard) -> None:
    """A job's own tidying up would be interrupted in its turn."""
    raised = []

    def job() -> str:
        for _ in range(2):
            try:
                interrupt(guard)
            except JobInterrupted:
                raised.append(1)
        return "tidy"

    assert guard.run(job) == "tidy"
    assert (raised, guard.interrupted) == ([1], False)


@pytest.mark.usefixtures("handler")
def test_a_job_that_was_told_before_it_began_is_not_begun(guard: Guard) -> None:
    """It would run on until it is killed, since no signal comes again."""
    guard.memory.interrupt = True
    with pytest.raises(JobInterrupted):
        guard.run(lambda: pytest.fail("it was begun"))


@pytest.mark.usefixtures("handler")
def test_an_interruption_waits_for_the_outermost_block(guard: Guard) -> None:
    """Leaving an inner block would tear the outer one."""
    log = []

    @uninterruptible()
    def outer() -> None:
        with uninterruptible():
            interrupt(guard)
            log.append("inner")
        log.append("outer")

    def job() -> None:
        outer()
        log.append("never")

    with pytest.raises(JobInterrupted):
        guard.run(job)
    assert log == ["inner", "outer"]


@pytest.mark.usefixtures("handler")
def test_an_interruption_waits_for_another_thread(guard: Guard) -> None:
    """What a thread of the job must do as a whole would be torn by the end of the process."""
    shielded, told, log = threading.Event(), threading.Event(), []

    def in_thread() -> None:
        with uninterruptible():
            shielded.set()
            told.wait(10)
            log.append("thread")

    def job() -> None:
        thread = threading.Thread(target=in_thread)
        thread.start()
        shielded.wait(10)
        interrupt(guard)
        log.append("main goes on")
        told.set()
        try:
            threading.Event().wait(10)
        finally:
            thread.join(10)

    with pytest.raises(JobInterrupted):
        guard.run(job)
    assert log == ["main goes on", "thread"]


@pytest.mark.usefixtures("handler")
def test_many_threads_enter_and_leave(guard: Guard) -> None:
    """A lost count would leave the job shielded for ever, or not shielded while a block runs."""

    def in_thread() -> None:
        for _ in range(2000):
            with uninterruptible():
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


@pytest.mark.usefixtures("handler")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_that_the_job_forks_is_not_the_job(guard: Guard) -> None:
    """A pool's process would end in the middle of its work, and save cursors that are not the job's."""

    def job() -> int:
        child = os.fork()
        if child == 0:
            os._exit(0 if guard.elsewhere else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert guard.run(job) == 0
    assert not guard.elsewhere


def test_time_left_counts_down_to_the_soft_limit(guard: Guard) -> None:
    """A job would plan with time that it has not got."""
    assert (shutdown_requested(), time_left()) == (False, None)
    guard.memory.announce(Limits(Deadline.after(5), Deadline.after(50), Deadline.after(500)))
    assert shutdown_requested()
    assert 4 < (time_left() or 0) <= 5
    guard.memory.announce(Limits(Deadline.after(-5), Deadline.after(50), Deadline.after(500)))
    assert time_left() == 0


def test_outside_a_worker_there_is_no_shutdown() -> None:
    """A job could not be called from a shell, a view or a test."""
    assert (shutdown_requested(), time_left()) == (False, None)
    with uninterruptible():
        assert uninterruptible()(lambda: 3)() == 3


def test_asking_for_a_shutdown_is_cheap(guard: Guard) -> None:
    """Inner loops could not afford it: it is to take under a microsecond (about 0.1 on a machine of 2024)."""
    seconds = min(timeit.repeat(shutdown_requested, number=20_000, repeat=10)) / 20_000
    assert seconds < 1e-6
