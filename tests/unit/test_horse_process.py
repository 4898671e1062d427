"""What a worker does to the process of a job."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from graceful.worker.horse.process import HorseProcess


def test_a_horse_whose_stacks_cannot_be_kept_is_killed() -> None:
    """A full file system keeps where the job stood from being written down, not the horse from being killed."""
    killed: list[signal.Signals] = []
    worker: Any = SimpleNamespace(name="w", horse_pid=2**22 + 1, kill_horse=killed.append)

    def full() -> str:
        raise OSError("No space left on device")

    memory: Any = SimpleNamespace(read_stack=full)
    with pytest.raises(OSError, match="No space left"):
        HorseProcess(worker, memory).kill(with_stacks=True)
    assert killed == [signal.SIGKILL]
