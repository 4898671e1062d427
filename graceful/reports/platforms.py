"""Which platform runs this process, for advice about its grace period."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Platform(StrEnum):
    """What sends SIGKILL when its own grace period is over."""

    KUBERNETES = "kubernetes"
    HEROKU = "heroku"
    ECS = "ecs"
    SYSTEMD = "systemd"
    UNKNOWN = "unknown"


def platform_of(environment: Mapping[str, str]) -> Platform:
    """What this process was started by, as the platforms' own variables tell."""
    for variable, platform in (
        ("KUBERNETES_SERVICE_HOST", Platform.KUBERNETES),
        ("DYNO", Platform.HEROKU),
        ("ECS_CONTAINER_METADATA_URI_V4", Platform.ECS),
        ("INVOCATION_ID", Platform.SYSTEMD),
    ):
        if environment.get(variable):
            return platform
    return Platform.UNKNOWN
