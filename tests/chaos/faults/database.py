"""Faults of the database, with and without Redis."""

from __future__ import annotations

import sqlite3

from tests.chaos.faults.scene import Scene, once


def database_locked(scene: Scene) -> None:
    """Another process writes until the worker has ended."""
    _lock_database(scene)
    scene.sleep(scene.round.stop)
    scene.stop()


def database_slow(scene: Scene) -> None:
    """Another process writes for a while."""
    locked: list[sqlite3.Connection] = []

    def strike() -> None:
        locked.append(scene.lane.open_database())
        locked[0].execute("BEGIN EXCLUSIVE")

    def lift() -> None:
        for each in locked:
            each.close()

    scene.stop_around(strike, lift)


def database_gone(scene: Scene) -> None:
    """Its path is a directory until the worker has ended."""
    path = scene.lane.database
    away = path.with_suffix(".away")

    def lift() -> None:
        path.rmdir()
        away.rename(path)

    path.rename(away)
    path.mkdir()
    scene.lifted.callback(once(lift))
    scene.sleep(scene.round.stop)
    scene.stop()


def nothing_there(scene: Scene) -> None:
    """Neither Redis nor the database, until the worker has ended."""
    _lock_database(scene)
    scene.lifted.callback(scene.lane.proxy.resume)
    strike = scene.rng.choice((scene.lane.proxy.refuse, scene.lane.proxy.stall))
    scene.stop_around(strike)


def _lock_database(scene: Scene) -> None:
    locked = scene.lane.open_database()
    locked.execute("BEGIN EXCLUSIVE")
    scene.lifted.callback(locked.close)
