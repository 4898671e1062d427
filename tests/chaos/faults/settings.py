"""Settings of the workers that are struck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOOK = "tests.chaos.jobs.hook_good"
TIMEOUT = 1.4
"""``GRACEFUL_TIMEOUT`` of the suite's workers, seconds."""
SETTINGS: Mapping[str, Any] = {
    "GRACEFUL_TIMEOUT": TIMEOUT,
    "GRACEFUL_HOOKS_TIMEOUT": 0.6,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.25,
    "GRACEFUL_EXIT_HOOKS": [HOOK],
}
