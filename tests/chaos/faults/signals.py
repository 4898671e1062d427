"""Faults that are signals: those that ask a worker to stop, those that kill, and those that freeze it."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.faults.scene import Scene
from tests.chaos.faults.settings import TIMEOUT


def sigterm(scene: Scene) -> None:
    scene.stop()


def sigint(scene: Scene) -> None:
    scene.stop(signal.SIGINT)


def double(scene: Scene) -> None:
    scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))
    scene.sleep(scene.rng.choice((0.0, 0.01, 1.02)))
    scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


def triple(scene: Scene) -> None:
    for _ in range(2):
        scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))
        scene.sleep(scene.rng.choice((0.0, 0.05, 1.02)))
    scene.stop()


def group(scene: Scene) -> None:
    scene.stop_counts()
    scene.worker.signal_group(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


def session(scene: Scene) -> None:
    scene.stop_counts()
    scene.worker.signal_session(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


def kill_worker(scene: Scene) -> None:
    scene.worker.signal(signal.SIGKILL)


def kill_stopping(scene: Scene) -> None:
    """As a platform does whose grace period is over."""
    scene.stop()
    scene.sleep(scene.rng.choice((scene.rng.uniform(0, 0.03), scene.rng.uniform(0, 1.5))))
    scene.worker.signal(signal.SIGKILL)


def kill_horse(scene: Scene) -> None:
    children = scene.worker.children()
    if children:
        try:
            os.kill(scene.rng.choice(children), signal.SIGKILL)
        except ProcessLookupError:
            pass
    scene.sleep(max(0.0, scene.round.stop))
    scene.stop()


def kill_both(scene: Scene) -> None:
    scene.worker.signal_session(signal.SIGKILL)


def freeze(scene: Scene) -> None:
    """SIGSTOP, and SIGCONT past the deadline."""
    first = scene.rng.random() < 0.5
    if first:
        scene.stop()
        scene.sleep(scene.rng.uniform(0, 0.05))
    scene.worker.signal(signal.SIGSTOP)
    if not first:
        scene.worker.signal(signal.SIGTERM)
    scene.sleep(TIMEOUT + scene.rng.uniform(0.0, 0.3))
    scene.worker.signal(signal.SIGCONT)
    # A signal that was sent while it was stopped reaches it only now.
    scene.stop_counts()
    scene.excused_until = time.monotonic() if first else 0.0
