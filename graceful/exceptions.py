"""Every exception that this package raises or lets through."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


class GracefulError(Exception):
    """Base of the ordinary errors of this package."""


class InvalidSettings(GracefulError, ImproperlyConfigured):
    """One or more settings are wrong; the message names key, rule and value of each."""


class UnsupportedWorkerClass(GracefulError, ImproperlyConfigured):
    """The given class cannot be made graceful; the message says why."""


class UnreadableReport(GracefulError):
    """A stored report is not of the form that this version reads."""


class TooManyInterruptions(GracefulError):
    """A job was interrupted more often than ``GRACEFUL_MAX_INTERRUPTIONS`` allows."""


class StoppedByShutdown(GracefulError):
    """What a job fails with that was interrupted by a shutdown and asked to be failed for it."""


class CursorMismatch(GracefulError):
    """A ``resumable`` loop is not the one that the saved cursor is of: going on could skip items or repeat many."""


class Interruption(BaseException):
    """Base of what ends code from outside; a ``BaseException``, so that ``except Exception`` lets it pass.

    Args:
        reason: why, in words that stand in the log and in the report.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class JobInterrupted(Interruption):
    """Raised inside a running job when the grace period leaves it no more time."""


class HookTimedOut(Interruption):
    """Raised inside an exit hook when its time is up."""
