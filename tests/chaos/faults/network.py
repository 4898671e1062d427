"""Faults between the worker and Redis, made by the lane's proxy."""

from __future__ import annotations

from tests.chaos.faults.scene import Scene


def redis_refuses(scene: Scene) -> None:
    scene.stop_around(scene.lane.proxy.refuse, scene.lane.proxy.resume)


def redis_gone(scene: Scene) -> None:
    """Refuses connections until the worker has ended."""
    scene.lifted.callback(scene.lane.proxy.resume)
    scene.stop_around(scene.lane.proxy.refuse)


def network_gone(scene: Scene) -> None:
    """No reply and no reset, until the worker has ended."""
    scene.lifted.callback(scene.lane.proxy.resume)
    scene.stop_around(scene.lane.proxy.stall)


def cut_reply(scene: Scene) -> None:
    """Connections cut in the middle of a reply, several times."""
    proxy = scene.lane.proxy

    def strike() -> None:
        for _ in range(scene.rng.randint(1, 4)):
            proxy.cut_in_reply(scene.rng.choice((0, 1, scene.rng.randint(0, 60), scene.rng.randint(0, 2000))))
            scene.sleep(scene.rng.uniform(0, 0.06))

    scene.lifted.callback(proxy.resume)
    scene.stop_around(strike)
