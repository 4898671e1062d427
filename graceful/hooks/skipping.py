"""How a hook says that it had nothing to do with this process."""

from __future__ import annotations


class HookSkipped(Exception):
    """Raised by an exit hook to be reported as skipped; its text says why."""
