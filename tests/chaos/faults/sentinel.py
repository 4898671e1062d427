"""Fail-overs of a Redis that Sentinels look after; writes of the last moments may be lost with the primary."""

from __future__ import annotations

from tests.chaos.faults.scene import Scene
from tests.chaos.services import SentinelGroup, SentinelLane


def primary_killed(scene: Scene) -> None:
    """The primary is killed; the Sentinels make the replica the primary."""
    group = _group(scene)
    group.wait_replicated()
    scene.stop_around(group.kill_primary)
    group.wait_failover()


def planned_failover(scene: Scene) -> None:
    """``SENTINEL FAILOVER``: the primary becomes a replica, with its connections up at first."""
    group = _group(scene)
    group.wait_replicated()
    scene.stop_around(group.order_failover)
    group.wait_failover()


def _group(scene: Scene) -> SentinelGroup:
    assert isinstance(scene.lane, SentinelLane)
    return scene.lane.group
