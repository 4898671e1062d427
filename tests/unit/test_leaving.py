"""The last resort of a process whose exit code is known: a thread that has it, and the watchdog behind that."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from graceful.hooks import watchdog
from graceful.worker.shutdown import exit


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.02, 0.12, 1.0, 25.0])
def test_the_watchdog_leaves_the_thread_with_the_exit_code_a_margin(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is, the thread that ends the process with its exit code comes a margin before the watchdog."""
    armed: list[float] = []
    timers: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, function: Any, args: Any) -> None:
            timers.append(interval)
            super().__init__(3600, lambda: None)

    monkeypatch.setattr(watchdog, "arm", lambda deadline: armed.append(deadline.left()))
    monkeypatch.setattr(threading, "Timer", Timer)
    exit.leave_by(75, seconds).cancel()
    assert armed[-1] - timers[0] == pytest.approx(exit.WATCHDOG_MARGIN, abs=0.02)
    assert armed[-1] <= max(seconds, exit.SHORTEST_SECONDS + exit.WATCHDOG_MARGIN) + 0.001
