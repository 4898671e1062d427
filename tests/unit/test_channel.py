"""The memory that worker and horse share: what one writes, the other reads, whoever of them was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from graceful.core.deadline import Deadline
from graceful.core.policy import Limits
from graceful.core.text import TEXT_LIMIT
from graceful.jobs.channel import Channel, Stage, Verdict


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()


def test_at_first_nothing_is_said(channel: Channel) -> None:
    """A job would be interrupted by what another one left behind."""
    assert not channel.announced
    assert channel.limits is None
    assert not channel.interrupt
    assert channel.verdict is Verdict.NONE
    assert channel.stage is Stage.STARTING
    assert channel.policy is None
    assert channel.read_stack() == ""


@given(st.tuples(*[st.floats(-1e9, 1e9)] * 3))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_limits_arrive_as_they_were_sent(channel: Channel, instants: tuple[float, float, float]) -> None:
    """The job would be told of another time than the worker keeps to."""
    limits = Limits(*map(Deadline, instants))
    channel.announce(limits)
    assert channel.announced
    assert channel.limits == limits
    channel.withdraw()
    assert channel.limits is None


def test_the_next_job_begins_anew_but_knows_of_the_shutdown(channel: Channel) -> None:
    """A second job would carry the first one's verdict, or would not hear of a shutdown that came between them."""
    channel.announce(Limits(Deadline(1.0), Deadline(2.0), Deadline(3.0)))
    channel.worker_pid = 4711
    channel.interrupt = True
    channel.verdict = Verdict.INTERRUPTED
    channel.stage = Stage.STORING
    channel.policy = "fail"
    channel.write_stack("somewhere")
    channel.reset()
    assert (channel.interrupt, channel.verdict, channel.stage, channel.policy) == (
        False,
        Verdict.NONE,
        Stage.STARTING,
        None,
    )
    assert channel.read_stack() == ""
    assert channel.announced
    assert channel.worker_pid == 4711


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("policy", [None, "requeue", "fail"])
def test_what_a_killed_horse_wrote_is_read(channel: Channel, verdict: Verdict, policy: str | None) -> None:
    """A job that had finished in its last instant would be run again."""
    pid = os.fork()
    if pid == 0:
        channel.verdict = verdict
        channel.policy = policy
        channel.stage = Stage.RUNNING
        channel.write_stack("the horse stood here")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (channel.verdict, channel.policy, channel.stage) == (verdict, policy, Stage.RUNNING)
    assert channel.read_stack() == "the horse stood here"


def test_a_started_program_shares_it_too(channel: Channel) -> None:
    """A spawned horse would hear nothing of the shutdown."""
    channel.announce(Limits(Deadline(1.0), Deadline(2.0), Deadline(3.5)))
    program = (
        "import sys; from graceful.jobs.channel import Channel, Verdict; "
        "channel = Channel(int(sys.argv[1]), int(sys.argv[2])); "
        "channel.verdict = Verdict.FINISHED; channel.write_stack(str(channel.limits.end.at))"
    )
    descriptors = (channel.memory, channel.stacks)
    subprocess.run([sys.executable, "-c", program, *map(str, descriptors)], pass_fds=descriptors, check=True)
    assert channel.verdict is Verdict.FINISHED
    assert channel.read_stack() == "3.5"


@given(st.text(st.characters(codec=None), max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stack_can_be_written(channel: Channel, text: str) -> None:
    """A job whose source is not in order would break the worker's end."""
    channel.write_stack(text)
    assert channel.read_stack() == text.encode("utf-8", "replace").decode().strip("\n")


def test_a_shorter_stack_replaces_a_longer_one(channel: Channel) -> None:
    """A report would end in the lines of an older stack."""
    channel.write_stack("long " * TEXT_LIMIT)
    assert len(channel.read_stack()) <= 4 * TEXT_LIMIT
    channel.write_stack("short")
    assert channel.read_stack() == "short"


def test_nothing_of_it_stands_in_the_file_system(channel: Channel) -> None:
    """A killed worker would leave files behind, and others could read them."""
    for descriptor in (channel.memory, channel.stacks):
        assert os.fstat(descriptor).st_nlink == 0
