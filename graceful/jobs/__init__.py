"""What job code may use: ``shutdown_requested``, ``time_left``, ``uninterruptible``."""

from __future__ import annotations

from graceful.jobs.clock import shutdown_requested, time_left, uninterruptible

__all__ = ["shutdown_requested", "time_left", "uninterruptible"]
