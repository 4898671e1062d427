"""Which platform runs this process, and how long it waits between SIGTERM and SIGKILL, as far as that can be known.

Sources: Kubernetes, "Pod Lifecycle" (terminationGracePeriodSeconds); Amazon ECS, ``ContainerDefinition.stopTimeout``;
Heroku, "Dyno shutdown"; Fly.io, "App configuration" (kill_timeout); Render, ``maxShutdownDelaySeconds``; ``docker
stop``; supervisord's ``stopwaitsecs``; systemd.service(5), ``TimeoutStopSec=``.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

MARGIN_SECONDS = 5.0
"""Between the end of the worker's grace period and that of its platform; a fifth of the latter if that is less."""
SYSTEMCTL_SECONDS = 1.0
CGROUP = Path("/proc/self/cgroup")
DOCKER_FILE = Path("/.dockerenv")
TIME_SPAN = r"(\d+)(month|min|ms|us|y|w|d|h|s)\b"
UNIT_SECONDS = {
    "y": 31_557_600.0,
    "month": 2_629_800.0,
    "w": 604_800.0,
    "d": 86_400.0,
    "h": 3600.0,
    "min": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}
"""systemd.time(7)."""


class Platform(StrEnum):
    """What sends SIGKILL when its own grace period is over."""

    KUBERNETES = "kubernetes"
    HEROKU = "heroku"
    ECS = "ecs"
    FLY = "fly"
    RENDER = "render"
    DOCKER = "docker"
    SUPERVISOR = "supervisor"
    SYSTEMD = "systemd"
    UNKNOWN = "unknown"


class PlatformGrace(NamedTuple):
    """How long a platform waits before it sends SIGKILL.

    Args:
        name: the platform's name.
        seconds: how long it waits.
        unless: what would make it wait longer, where nothing tells whether it is set; empty if the seconds are certain.
    """

    name: str
    seconds: float
    unless: str = ""

    @property
    def longest_timeout(self) -> float:
        """The longest ``GRACEFUL_TIMEOUT`` that fits, in seconds."""
        return self.seconds - min(MARGIN_SECONDS, self.seconds / 5)


GRACE = {
    Platform.KUBERNETES: PlatformGrace("Kubernetes", 30.0, "terminationGracePeriodSeconds"),
    Platform.HEROKU: PlatformGrace("Heroku", 30.0),
    Platform.ECS: PlatformGrace("Amazon ECS", 30.0, "stopTimeout"),
    Platform.FLY: PlatformGrace("Fly.io", 5.0, "kill_timeout"),
    Platform.RENDER: PlatformGrace("Render", 30.0, "maxShutdownDelaySeconds"),
    Platform.SUPERVISOR: PlatformGrace("supervisord", 10.0, "stopwaitsecs"),
    Platform.DOCKER: PlatformGrace("Docker", 10.0, "stop_grace_period or --stop-timeout"),
}


def platform_of(environment: Mapping[str, str]) -> Platform:
    """What this process was started by, as the platforms' own variables tell, or Docker's file."""
    for variable, platform in (
        ("SUPERVISOR_ENABLED", Platform.SUPERVISOR),  # The nearest one is the first to lose its patience.
        ("KUBERNETES_SERVICE_HOST", Platform.KUBERNETES),
        ("DYNO", Platform.HEROKU),
        ("ECS_CONTAINER_METADATA_URI_V4", Platform.ECS),
        ("FLY_MACHINE_ID", Platform.FLY),
        ("RENDER", Platform.RENDER),
        ("INVOCATION_ID", Platform.SYSTEMD),
    ):
        if environment.get(variable):
            return platform
    return Platform.DOCKER if DOCKER_FILE.exists() else Platform.UNKNOWN


def platform_grace(environment: Mapping[str, str], said: float | None) -> PlatformGrace | None:
    """How long the platform of this process waits, or None where nothing tells.

    Under systemd it asks ``systemctl`` for the unit's own time, for a second at most.

    Args:
        environment: the process's environment.
        said: ``GRACEFUL_PLATFORM_TIMEOUT``, which goes before anything else.
    """
    if said is not None:
        return PlatformGrace("the platform (GRACEFUL_PLATFORM_TIMEOUT)", said)
    platform = platform_of(environment)
    if platform is not Platform.SYSTEMD:
        return GRACE.get(platform)
    seconds = _systemd_seconds()
    return None if seconds is None else PlatformGrace("systemd", seconds)


def _systemd_seconds() -> float | None:
    """``TimeoutStopSec=`` of the service that this process belongs to; None for a login's session, for instance."""
    try:
        groups = CGROUP.read_text()
    except OSError:
        return None
    # "0::/system.slice/shop-worker@1.service"; cgroup v1 has systemd's own hierarchy as "1:name=systemd:/...".
    path = re.search(r"^(?:0:|\d+:name=systemd):(/.+)$", groups, re.MULTILINE)
    unit = path[1].rpartition("/")[2] if path else ""
    if not path or not unit.endswith(".service"):
        return None
    manager = ["--user"] if "/user@" in path[1] else []
    command = ["systemctl", *manager, "show", "--property=TimeoutStopUSec", "--value", "--", unit]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _seconds(shown.stdout.strip()) if shown.returncode == 0 else None


def _seconds(span: str) -> float | None:
    """A time as systemctl shows it: ``1min 30s``, or ``infinity``."""
    if span == "infinity":
        return math.inf
    parts = re.findall(TIME_SPAN, span)
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts) if parts else None
