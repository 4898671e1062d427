"""Graceful shutdown for Django projects that run RQ. These are the public names; see the README.

Importing this package loads neither RQ nor models, so settings may do it; and not Django before a name is used, so
that a probe (``python -m graceful.probe``) is as fast as Python itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graceful.core.records import Shutdown, ShutdownReport
    from graceful.exceptions import CursorMismatch, JobInterrupted, JobMemoryExceeded, TooManyInterruptions
    from graceful.hooks.at_exit import run_at_exit
    from graceful.hooks.registry import exit_hook, horse_exit_hook
    from graceful.hooks.threads import register_thread
    from graceful.jobs import (
        checkpoint,
        on_interrupt,
        resumable,
        resume_state,
        shutdown_requested,
        step,
        time_left,
        uninterruptible,
    )

__all__ = [
    "CursorMismatch",
    "JobInterrupted",
    "JobMemoryExceeded",
    "Shutdown",
    "ShutdownReport",
    "TooManyInterruptions",
    "checkpoint",
    "exit_hook",
    "horse_exit_hook",
    "on_interrupt",
    "register_thread",
    "resumable",
    "resume_state",
    "run_at_exit",
    "shutdown_requested",
    "step",
    "time_left",
    "uninterruptible",
]

_HOMES = {
    "core.records": ("Shutdown", "ShutdownReport"),
    "exceptions": ("CursorMismatch", "JobInterrupted", "JobMemoryExceeded", "TooManyInterruptions"),
    "hooks.at_exit": ("run_at_exit",),
    "hooks.registry": ("exit_hook", "horse_exit_hook"),
    "hooks.threads": ("register_thread",),
    "jobs": (
        "checkpoint",
        "on_interrupt",
        "resumable",
        "resume_state",
        "shutdown_requested",
        "step",
        "time_left",
        "uninterruptible",
    ),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"graceful.{home}"), name)
            return value
    raise AttributeError(f"module 'graceful' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
