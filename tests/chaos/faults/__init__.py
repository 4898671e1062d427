"""What is broken: each fault strikes a scene, and is lifted with the block that it was struck in."""

from __future__ import annotations

from tests.chaos.faults.kinds import FAULTS, STOPPED, Fault, names_for
from tests.chaos.faults.scene import Scene
from tests.chaos.faults.settings import SETTINGS, TIMEOUT

__all__ = ["FAULTS", "SETTINGS", "STOPPED", "TIMEOUT", "Fault", "Scene", "names_for"]
