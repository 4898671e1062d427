"""The exceptions of this package."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


class GracefulError(Exception):
    """Base of the ordinary errors of this package."""


class InvalidSettings(GracefulError, ImproperlyConfigured):
    """One or more settings are wrong; the message names key, rule and value of each."""


class UnsupportedWorkerClass(GracefulError, ImproperlyConfigured):
    """The given class cannot be made graceful; the message says why."""


class NoLuaScripts(GracefulError):
    """The Redis server runs no Lua scripts; the message says what is needed."""


class UnreadableReport(GracefulError):
    """A stored report is not in the format that this version reads."""


class TooManyInterruptions(GracefulError):
    """A job was interrupted more often than ``GRACEFUL_MAX_INTERRUPTIONS`` allows."""


class PoisonJob(TooManyInterruptions):
    """As :class:`TooManyInterruptions`, of a job whose worker was killed while it ran; the message has the evidence."""


class StoppedByShutdown(GracefulError):
    """A job was interrupted by a shutdown, and its policy is to fail then."""


class HookSkipped(Exception):
    """Raised by an exit hook to be reported as skipped; its text is the reason."""


class CursorMismatch(GracefulError):
    """The saved cursor does not belong to this ``resumable`` loop: continuing could skip or repeat items."""


class Interruption(BaseException):
    """Base of what ends code from outside; a ``BaseException``, so that ``except Exception`` does not catch it.

    Args:
        reason: why; shown in the log and in the report.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class JobInterrupted(Interruption):
    """Raised inside a running job at its soft limit."""


class JobYielded(JobInterrupted):
    """Raised inside a ``resumable`` loop whose ``max_runtime`` is over: the job goes to the end of its queue."""


class JobMemoryExceeded(Interruption):
    """Raised inside a running job that needs more memory than ``GRACEFUL_JOB_MEMORY`` allows; the job fails."""

    @classmethod
    def of(cls, function: str, used: int, limit: int) -> JobMemoryExceeded:
        """The error of a job.

        Args:
            function: dotted name of its function.
            used: what its process has, in bytes.
            limit: what it may have, in bytes.
        """
        return cls(f"{function} has {used // 2**20} MB of memory, GRACEFUL_JOB_MEMORY allows {limit // 2**20} MB")


class HookTimedOut(Interruption):
    """Raised inside an exit hook at its timeout."""
