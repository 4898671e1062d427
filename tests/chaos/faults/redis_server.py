"""Faults of the Redis server itself; those of the way there are in :mod:`tests.chaos.faults.network`."""

from __future__ import annotations

from tests.chaos.faults.scene import Scene


def redis_kept(scene: Scene) -> None:
    """Restarted, with all that it held."""
    server = scene.lane.server

    def strike() -> None:
        with server.client(socket_timeout=5, retry=None) as client:
            client.shutdown(save=True)
        assert server.process is not None
        server.process.wait(10)

    scene.stop_around(strike, lambda: server.start() and None)


def redis_lost(scene: Scene) -> None:
    """Restarted, with all but the last moments."""
    server = scene.lane.server
    if scene.worker.ended.is_set():
        return
    scene.lane.connection.save()
    scene.sleep(scene.rng.choice((0.0, scene.rng.uniform(0, 0.05), scene.rng.uniform(0, 0.8))))
    scene.stop_around(server.kill, lambda: server.start() and None)


def redis_paused(scene: Scene) -> None:
    scene.stop_around(scene.lane.server.pause, scene.lane.server.resume)


def redis_full(scene: Scene) -> None:
    """Out of memory."""
    connection = scene.lane.connection
    scene.stop_around(
        lambda: connection.config_set("maxmemory", "1") and None,
        lambda: connection.config_set("maxmemory", "0") and None,
    )


def redis_read_only(scene: Scene) -> None:
    """A replica since the last failover."""
    connection = scene.lane.connection
    scene.stop_around(
        lambda: connection.replicaof("127.0.0.1", "1") and None, lambda: connection.replicaof("NO", "ONE") and None
    )
