"""What job code may use. All of it also works outside a worker, where no shutdown ever comes."""

from __future__ import annotations

from graceful.jobs.on_interrupt import on_interrupt, policy_of
from graceful.jobs.progress import Progress, progress
from graceful.resume.clock import shutdown_requested, time_left, uninterruptible
from graceful.resume.loop import checkpoint, resumable, resume_state
from graceful.resume.steps import step

__all__ = [
    "Progress",
    "checkpoint",
    "on_interrupt",
    "policy_of",
    "progress",
    "resumable",
    "resume_state",
    "shutdown_requested",
    "step",
    "time_left",
    "uninterruptible",
]
