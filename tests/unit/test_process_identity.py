"""Whether a process lives: what could not be found out is never taken for death."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from graceful.worker.cluster import process_identity
from graceful.worker.cluster.process_identity import Liveness, Process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def unreadable(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Nothing can be read of any process: ``/proc`` answers with an error, as would a ``ps`` that is too slow."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


def test_a_process_is_alive_until_it_has_ended(child: subprocess.Popen[bytes]) -> None:
    """A process is dead once it is a zombie or its pid is free."""
    process = Process.here(child.pid)
    assert process.liveness is Liveness.ALIVE
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.liveness is Liveness.DEAD
    child.wait()
    assert process.liveness is Liveness.DEAD


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """A dead worker whose pid has been given to another process counts as dead."""
    assert Process.here()._replace(started="1").liveness is Liveness.DEAD


def test_a_start_time_that_was_never_learnt_proves_nothing() -> None:
    """A process without a known start time is unknown, not dead."""
    assert Process.here()._replace(started="").liveness is Liveness.UNKNOWN


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ENOENT, errno.ESRCH])
def test_what_cannot_be_read_is_unknown(
    number: int, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that cannot be inspected is unknown: no descriptor left, no access, or ``hidepid``."""
    process = Process.here(child.pid)
    unreadable(monkeypatch, number)
    assert process.liveness is Liveness.UNKNOWN
    assert not process.dead(overdue=False)
    assert process.dead(overdue=True)


def test_what_cannot_be_read_and_is_gone_is_dead(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill(2) proves a death if /proc cannot be read."""
    process = Process.here(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    unreadable(monkeypatch, errno.EMFILE)
    assert process.liveness is Liveness.DEAD


def test_another_users_process_that_is_hidden_is_unknown(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's process hidden by ``hidepid=2`` is unknown."""
    process = Process.here(child.pid)
    unreadable(monkeypatch, errno.ENOENT)

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        assert process.liveness is Liveness.UNKNOWN


@pytest.mark.parametrize("pid", [0, -1, 2**70])
def test_a_pid_that_is_none_proves_nothing(pid: int) -> None:
    """Invalid pids and those that kill(2) takes for groups are unknown."""
    assert Process.here()._replace(pid=pid).liveness is Liveness.UNKNOWN


@pytest.mark.parametrize("other", [{"machine": "another"}, {"host": "clone"}])
def test_a_process_of_another_machine_is_unknown(other: dict[str, str]) -> None:
    """A process on another machine is unknown, also on a cloned one with the same boot id."""
    process = Process.here()._replace(started="1", **other)  # type: ignore[arg-type]
    assert process.liveness is Liveness.UNKNOWN
    assert not process.local


def test_a_registration_of_the_version_before_is_local() -> None:
    """A registration without a host name is compared by its machine alone."""
    process = Process(process_identity.machine(), os.getpid(), process_identity.start_time(os.getpid()))
    assert process.liveness is Liveness.ALIVE
    assert Process.here().host == socket.gethostname()
