"""Graceful shutdown for Django projects that run RQ. These are the public names; see the README.

Importing this package loads neither RQ nor models, so settings may do it.
"""

from __future__ import annotations

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
    "time_left",
    "uninterruptible",
]
