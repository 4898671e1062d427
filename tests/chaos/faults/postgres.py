"""Faults of a PostgreSQL that has the archive, with a pool of connections in the worker."""

from __future__ import annotations

from contextlib import ExitStack

from tests.chaos.faults.scene import Scene, once
from tests.chaos.services import Postgres, PostgresLane


def backends_killed(scene: Scene) -> None:
    """An administrator ends all connections, several times (``pg_terminate_backend``)."""

    def strike() -> None:
        for _ in range(scene.rng.randint(1, 5)):
            _postgres(scene).terminate_backends()
            scene.sleep(scene.rng.uniform(0, 0.1))

    scene.stop_around(strike)
    while not scene.worker.ended.wait(scene.rng.uniform(0, 0.05)):
        _postgres(scene).terminate_backends()


def out_of_connections(scene: Scene) -> None:
    """Others have taken all connections, until the worker has ended."""
    taken = ExitStack()
    scene.lifted.callback(taken.close)
    scene.stop_around(lambda: taken.enter_context(_postgres(scene).all_connections_taken()) and None)


def postgres_restarts(scene: Scene) -> None:
    """A failover as most installations see it: connections are ended, and taken again a moment later."""
    scene.stop_around(lambda: _postgres(scene).stop("fast"), _postgres(scene).start)


def postgres_crashes(scene: Scene) -> None:
    """As :func:`postgres_restarts`, without notice to its clients, and with a recovery."""
    scene.stop_around(lambda: _postgres(scene).stop("immediate"), _postgres(scene).start)


def postgres_gone(scene: Scene) -> None:
    """Refuses connections until the worker has ended."""
    scene.lifted.callback(once(_postgres(scene).start))
    scene.stop_around(lambda: _postgres(scene).stop("immediate"))


def postgres_hangs(scene: Scene) -> None:
    """Takes connections and answers nothing, until the worker has ended."""
    scene.lifted.callback(_postgres(scene).resume)
    scene.stop_around(_postgres(scene).pause)


def table_locked(scene: Scene) -> None:
    """A migration holds the reports' table until the worker has ended."""
    locked = scene.lane.open_database()
    scene.lifted.callback(locked.close)
    locked.execute("BEGIN")
    locked.execute("LOCK TABLE graceful_shutdownreport IN ACCESS EXCLUSIVE MODE")
    scene.sleep(scene.round.stop)
    scene.stop()


def _postgres(scene: Scene) -> Postgres:
    assert isinstance(scene.lane, PostgresLane)
    return scene.lane.postgres
