"""Calls ``GRACEFUL_BUSY_HOOKS`` and ``GRACEFUL_IDLE_HOOKS``, so that a platform scales in workers that are idle.

They run in a thread of their own, which only a worker that has such hooks imports and starts. A job waits for the
first of these calls, but not for long: protection that comes late is better than a job that does not come.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from graceful import threads
from graceful.conf import Settings
from graceful.core.activity import Activity, Pulse, next_call
from graceful.core.deadline import Deadline
from graceful.core.phases import HookOutcome
from graceful.core.records import HookSpec
from graceful.core.text import one_line
from graceful.hooks.attempt import Attempt
from graceful.worker.busy_count import BusyCount
from graceful.worker.shutdown.os_signals import Inbox, blocked

log = logging.getLogger("graceful.worker")
CALLED = "Worker %s: %s hook %s: %s"
FAILED = "Worker %s: %s hook %s failed: %s"
STILL_RUNS = "Worker %s: %s hook %s took longer than %.3g s"

JOB_WAITS_SECONDS = 1.0
"""How long the first job after idleness waits for the busy hooks at most."""
HOOK_SECONDS = 5.0
"""What a hook without a timeout of its own may take."""


class ScaleIn:
    """Tells the outside whether one worker is busy or idle.

    Args:
        worker: the worker's name.
        queues: names of its queues.
        settings: the settings that hold for it.
        inbox: what is asked of the worker from outside.
        others_run: whether jobs run in threads of the worker's own class.
    """

    def __init__(
        self,
        worker: str,
        queues: tuple[str, ...],
        settings: Settings,
        inbox: Inbox,
        others_run: Callable[[], bool],
    ) -> None:
        self._worker = worker
        self._queues = queues
        self._settings = settings
        self._inbox = inbox
        self._others_run = others_run
        self._changed = threading.Condition()
        self._pulse = Pulse(time.monotonic())
        self._looks_at = 0.0
        self._news = True
        """Whether the next job is news to those outside, and waits until they have been told."""
        self._running: dict[str, threads.Bounded[None]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; where there is none to be had, nobody is told of anything."""
        with blocked():  # Signals are for the main thread, whose waits they end.
            thread = threading.Thread(target=self._run, name="graceful-scale-in", daemon=True)
            self._thread = threads.started(thread)

    @contextmanager
    def job(self) -> Iterator[None]:
        """In this block the worker has a job. The first one after idleness waits for the busy hooks, for a second."""
        until = Deadline.after(JOB_WAITS_SECONDS)
        self._update(working=True)
        while self._news and self._thread is not None and self._thread.is_alive():
            if until.expired or self._inbox.unread:
                break
            self._inbox.wait(until.left())
        self._news = False
        try:
            yield
        finally:
            self._update(working=False, idle_since=time.monotonic())

    def end(self) -> None:
        """The last job is over: what was set for a busy worker can be undone."""
        self._update(working=False, ending=True)

    def wait(self, seconds: float) -> None:
        """Wait until that is done, at most so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _update(self, **changes: object) -> None:
        with self._changed:
            self._pulse = replace(self._pulse, **changes)  # type: ignore[arg-type]
            # Not at each of a thousand jobs a second, but only where the thread has to look earlier than it means to.
            if time.monotonic() + self._next()[1] < self._looks_at:
                self._changed.notify()

    def _next(self) -> tuple[bool | None, float]:
        """As :func:`next_call`. Nobody tells when a job in a thread of the worker's class ends: that is looked for."""
        now, idle_after = time.monotonic(), self._settings.idle_after
        if self._pulse.working or self._pulse.ending or not self._others_run():
            return next_call(self._pulse, now, idle_after)
        self._pulse = replace(self._pulse, idle_since=now)
        busy, seconds = next_call(replace(self._pulse, working=True), now, idle_after)
        return busy, min(seconds, idle_after)

    def _run(self) -> None:
        count = BusyCount(self._worker, self._settings.spool_dir)
        ending = False
        while not ending:
            with self._changed:
                busy, seconds = self._next()
                ending = self._pulse.ending
                if busy is None and not ending:
                    self._looks_at = time.monotonic() + seconds
                    self._changed.wait(None if math.isinf(seconds) else seconds)
                    self._looks_at = 0.0
            if busy is not None:
                succeeded = self._tell(busy, count)
                with self._changed:
                    self._pulse = replace(self._pulse, told=busy, told_at=time.monotonic(), succeeded=succeeded)
                    self._news = not busy
                self._inbox.wake()
        count.close()

    def _tell(self, busy: bool, count: BusyCount) -> bool:
        """Call all hooks of one kind.

        Returns:
            False if that has to be done again soon: a hook failed, or another worker here is busy.
        """
        if busy:
            count.join(Deadline.after(HOOK_SECONDS))
            return self._call_all(self._settings.busy_hooks, busy)
        with count.left() as alone:
            return alone and self._call_all(self._settings.idle_hooks, busy)

    def _call_all(self, specs: tuple[HookSpec, ...], busy: bool) -> bool:
        results = [self._call(spec, busy) for spec in specs]
        return all(results)

    def _call(self, spec: HookSpec, busy: bool) -> bool:
        kind, seconds = "busy" if busy else "idle", spec.timeout or HOOK_SECONDS
        before = self._running.get(spec.name)
        if before is not None and before.goes_on:  # One thread for a hook that hangs, not one at each of its calls.
            log.warning(STILL_RUNS, self._worker, kind, spec.name, seconds)
            return False
        attempt = Attempt(spec, seconds)
        activity = Activity(busy, self._worker, self._queues, Deadline.after(seconds))
        began = time.monotonic()
        call = threads.bounded(lambda: attempt.run(activity), seconds)
        if call.goes_on:
            self._running[spec.name] = call
            log.warning(STILL_RUNS, self._worker, kind, spec.name, seconds)
            return False
        result = attempt.result(time.monotonic() - began)
        if result.outcome in (HookOutcome.OK, HookOutcome.SKIPPED):
            log.debug(CALLED, self._worker, kind, spec.name, one_line(result.detail) or result.outcome.value)
            return True
        log.warning(FAILED, self._worker, kind, spec.name, one_line(result.error), exc_info=attempt.error)
        return False
