"""What job code may use: ``shutdown_requested``, ``time_left``, ``uninterruptible``, ``on_interrupt``."""

from __future__ import annotations

from graceful.jobs.clock import shutdown_requested, time_left, uninterruptible
from graceful.jobs.on_interrupt import on_interrupt, policy_of

__all__ = ["on_interrupt", "policy_of", "shutdown_requested", "time_left", "uninterruptible"]
