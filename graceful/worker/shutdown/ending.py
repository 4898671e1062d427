"""The end of a worker, once its loop is left: exit hooks, report, exit code; and what happens if that gets stuck."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NoReturn

from graceful.core.deadline import Deadline
from graceful.core.policy import hooks_deadline
from graceful.core.records import HookResult
from graceful.hooks import registry, runner, watchdog
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.shutdown.drain import Drain
from graceful.worker.shutdown.exit import bounded, leave, leave_by
from graceful.worker.shutdown.lifetime import Guardian, Lifetime

log = logging.getLogger("graceful.worker")
GUARDIAN_SECONDS = 0.4
"""How long before the end of the grace period the guardian takes over; a tenth of a shorter one."""

LATE_SECONDS = 0.25
"""What the guardian has before the watchdog where the grace period is over before the worker hears of it: it was
stopped (SIGSTOP, a machine that slept)."""


class Ending:
    """Runs the end once, in the main thread, or in another where the main thread is stuck.

    Args:
        lifetime: the report.
        drain: what was asked for, and the limits.
        heartbeat: what Redis knows of the worker.
        kill_horse: kills a horse that is still there.
    """

    def __init__(self, lifetime: Lifetime, drain: Drain, heartbeat: Heartbeat, kill_horse: Callable[[], None]) -> None:
        self._lifetime = lifetime
        self._drain = drain
        self._heartbeat = heartbeat
        self._empty_handed = False
        self._kill_horse = kill_horse
        self._guardian = Guardian(self._take_over)
        self._end: Deadline | None = None
        self._guarded: Deadline | None = None

    def prepare(self) -> None:
        """Start what the end needs while the worker starts: later there may be no thread to be had."""
        self._guardian.start()

    def guard(self, end: Deadline) -> None:
        """Make sure that the process is over by ``end``, whatever the main thread does."""
        self._end = end
        # What the main thread does in time must be over before the guardian looks.
        self._guarded = end.earlier(min(GUARDIAN_SECONDS, end.left() / 10))
        self._guardian.expect(self._guarded)
        watchdog.arm(max(end, Deadline.after(LATE_SECONDS)))

    def run(self, requeue_leftover: Callable[[], bool]) -> int:
        """Run exit hooks, seal and keep the report.

        Args:
            requeue_leftover: asks Redis for what the worker may still hold, and gives it back;
                false if something is left.

        Returns:
            the exit code.
        """
        settings = self._lifetime.settings
        end = self._drain.end().cut_to(settings.hooks_timeout)
        self.guard(end)
        leftover = bounded(requeue_leftover, end.left() / 8)
        if leftover.error is not None:
            log.warning("Redis could not be asked for what this worker held: %s", leftover.error)
        self._empty_handed = bool(leftover.value)
        self._lifetime.drained()
        runner.claim()  # So that graceful.run_at_exit() does not run them again.
        specs = registry.exit_hooks()
        if not specs:
            return self._finish(())
        results = runner.run_hooks(
            specs,
            shutdown=self._lifetime.shutdown,
            deadline=hooks_deadline(end, settings.hooks_timeout),
            on_start=lambda spec, seconds: self._lifetime.hook_started(spec.name),
            on_end=self._lifetime.hook_ended,
            take_over=self._leave,
        )
        return self._finish(results)

    def _finish(self, results: tuple[HookResult, ...]) -> int:
        code = self._lifetime.seal()
        assert self._guarded is not None
        assert self._end is not None
        # From here on the report may be read, and the process ends with its exit code whatever holds it up.
        last_resort = leave_by(code, self._end.left())
        self._keep(self._guarded)
        if not self._guardian.dismiss():
            threading.Event().wait()  # The guardian was quicker by a moment: what it does is the end.
        watchdog.disarm()
        last_resort.cancel()
        return code

    def _keep(self, until: Deadline) -> None:
        self._lifetime.keep(until, self._heartbeat, empty_handed=self._empty_handed)

    def _leave(self, results: tuple[HookResult, ...]) -> NoReturn:
        """In a second thread, after the hooks: the main thread is lost in one of them."""
        assert self._end is not None
        leave(self._finish(results), self._end.left())

    def _take_over(self, why: str) -> None:
        """In the guardian's thread: the main thread is lost somewhere else."""
        assert self._end is not None
        self._kill_horse()
        if self._lifetime.kept:
            # The report is stored, or about to be; what hangs is a log or a receiver of a signal.
            leave(self._lifetime.report.exit_code or 0, self._end.left())
        code = self._lifetime.seal(forced=why)
        # From here on even a log that nobody reads changes nothing.
        leave_by(code, self._end.left())
        self._keep(self._end)
        log.error("The shutdown has to be forced: %s", why)
        leave(code, self._end.left())
