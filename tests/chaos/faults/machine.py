"""Faults of the machine, and of the hooks that its users write."""

from __future__ import annotations

import random
import resource
import signal
from typing import Any

from tests.chaos.faults.scene import Scene
from tests.chaos.faults.settings import HOOK
from tests.chaos.jobs import BAD_HOOKS
from tests.support.processes import pids_in_session
from tests.support.waiting import wait_until


def disk_full(scene: Scene) -> None:
    """No file gets any longer: neither the database's, nor a spooled report, nor the kept stacks."""
    if not scene.worker.ended.is_set():
        for pid in (scene.worker.pid, *scene.worker.children()):
            try:
                _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
            except ProcessLookupError:
                continue
    scene.sleep(scene.round.stop)
    scene.stop()


def clock_back(scene: Scene) -> None:
    """The wall clock jumps, backwards mostly."""
    scene.stop_around(lambda: scene.lane.bend_clock(scene.rng.choice((-1.0, -60.0, -7200.0, -1e6, 7200.0))))


def outage(scene: Scene) -> None:
    """All of ours is killed and nobody of ours lives for one to four minutes; the others go on, and clean up."""
    scene.worker.signal_session(signal.SIGKILL)
    scene.worker.ended.wait(10)
    wait_until(lambda: not pids_in_session(scene.worker.pid), 10, lambda: f"all of {scene.worker!r} is gone")
    for _ in range(scene.rng.randint(1, 2)):
        scene.lane.let_time_pass(scene.rng.uniform(60, 130))
        scene.let_others_act()


def bad_hooks(scene: Scene) -> None:
    """Exit hooks that do what they must not; which ones is in the settings."""
    scene.stop()


def bad_hook_settings(rng: random.Random) -> dict[str, Any]:
    hooks: list[Any] = rng.sample(BAD_HOOKS, rng.randint(1, 3))
    return {"GRACEFUL_EXIT_HOOKS": [*hooks, HOOK]}
