"""The memory that worker and horse share: what one writes, the other reads, whoever of them was killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from graceful.core.deadline import Deadline
from graceful.core.limits import Limits
from graceful.core.text import TEXT_LIMIT
from graceful.jobs.shared_memory import SharedMemory, Stage, Verdict


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory()
    yield memory
    memory.close()


def test_at_first_nothing_is_said(memory: SharedMemory) -> None:
    """New shared memory holds no request, result or policy."""
    assert not memory.announced
    assert memory.limits is None
    assert not memory.interrupt
    assert memory.verdict is Verdict.NONE
    assert memory.stage is Stage.STARTING
    assert memory.policy is None
    assert memory.read_stack() == ""


@given(st.tuples(*[st.floats(-1e9, 1e9)] * 3))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_limits_arrive_as_they_were_sent(memory: SharedMemory, instants: tuple[float, float, float]) -> None:
    """The limits are read as they were announced."""
    limits = Limits(*map(Deadline, instants))
    memory.announce(limits)
    assert memory.announced
    assert memory.limits == limits


def test_the_next_job_begins_anew_but_knows_of_the_shutdown(memory: SharedMemory) -> None:
    """``reset`` clears the job's result and keeps the shutdown request."""
    memory.announce(Limits(Deadline(1.0), Deadline(2.0), Deadline(3.0)))
    memory.worker_pid = 4711
    memory.interrupt = True
    memory.verdict = Verdict.INTERRUPTED
    memory.stage = Stage.STORING
    memory.policy = "fail"
    memory.write_stack("somewhere")
    memory.reset()
    assert (memory.interrupt, memory.verdict, memory.stage, memory.policy) == (
        False,
        Verdict.NONE,
        Stage.STARTING,
        None,
    )
    assert memory.read_stack() == ""
    assert memory.announced
    assert memory.worker_pid == 4711


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("policy", [None, "requeue", "fail"])
def test_what_a_killed_horse_wrote_is_read(memory: SharedMemory, verdict: Verdict, policy: str | None) -> None:
    """What a killed horse wrote is read by the worker."""
    pid = os.fork()
    if pid == 0:
        memory.verdict = verdict
        memory.policy = policy
        memory.stage = Stage.RUNNING
        memory.write_stack("the horse stood here")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (memory.verdict, memory.policy, memory.stage) == (verdict, policy, Stage.RUNNING)
    assert memory.read_stack() == "the horse stood here"


def test_a_started_program_shares_it_too(memory: SharedMemory) -> None:
    """A spawned horse shares the same memory."""
    memory.announce(Limits(Deadline(1.0), Deadline(2.0), Deadline(3.5)))
    program = (
        "import sys; from graceful.jobs.shared_memory import SharedMemory, Verdict; "
        "memory = SharedMemory(int(sys.argv[1]), int(sys.argv[2])); "
        "memory.verdict = Verdict.FINISHED; memory.write_stack(str(memory.limits.end.at))"
    )
    descriptors = (memory.memory, memory.stacks)
    subprocess.run([sys.executable, "-c", program, *map(str, descriptors)], pass_fds=descriptors, check=True)
    assert memory.verdict is Verdict.FINISHED
    assert memory.read_stack() == "3.5"


@given(st.text(st.characters(codec=None), max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stack_can_be_written(memory: SharedMemory, text: str) -> None:
    """Any text can be written as a stack."""
    memory.write_stack(text)
    assert memory.read_stack() == text.encode("utf-8", "replace").decode().strip("\n")


def test_a_shorter_stack_replaces_a_longer_one(memory: SharedMemory) -> None:
    """A shorter stack replaces a longer one completely."""
    memory.write_stack("long " * TEXT_LIMIT)
    assert len(memory.read_stack()) <= 4 * TEXT_LIMIT
    memory.write_stack("short")
    assert memory.read_stack() == "short"


def test_nothing_of_it_stands_in_the_file_system(memory: SharedMemory) -> None:
    """The memory has no name in the file system."""
    for descriptor in (memory.memory, memory.stacks):
        assert os.fstat(descriptor).st_nlink == 0


def test_no_room_for_a_stack(memory: SharedMemory) -> None:
    """Where no file can grow a stack is dropped, and nothing is raised in who writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        memory.write_stack("somewhere")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert memory.read_stack() == ""


if sys.platform == "linux":

    def test_no_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
        """No temporary directory is needed: a container's file system may be read-only."""
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
        SharedMemory().close()
