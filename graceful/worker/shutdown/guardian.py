"""The thread that ends the process where the main thread does not.

It is the last resort but one: it needs the GIL, and still writes the report. Behind it stands
:mod:`graceful.hooks.watchdog`, which needs nothing and can do nothing but end the process.
"""

from __future__ import annotations

import sys
import threading
import traceback

from graceful.core.deadline import Deadline
from graceful.core.events import Stalled
from graceful.threads import started
from graceful.worker.shutdown.coordinator import Coordinator

STALLED = "the main thread did not reach its end; it stood at:\n{}"


class Guardian:
    """Waits for the end of a shutdown; outside the coordinator, since it must work where that one is stuck."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadline: Deadline | None = None
        self._dismissed = False
        self._took_over = False
        self._thread: threading.Thread | None = None

    def start(self, coordinator: Coordinator) -> None:
        """Start its thread, while the worker starts: later there may be none to be had."""
        with self._changed:
            if self._thread is None:
                watch = threading.Thread(target=self._watch, args=(coordinator,), name="graceful-guardian", daemon=True)
                self._thread = started(watch)

    def expect(self, deadline: Deadline, coordinator: Coordinator) -> None:
        """The main thread must have called :meth:`dismiss` by then, or the shutdown has stalled."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()
        self.start(coordinator)

    def dismiss(self) -> bool:
        """The end was reached in time.

        Returns:
            False where the guardian was quicker, and ends the process.
        """
        with self._changed:
            self._dismissed = True
            self._changed.notify()
            return not self._took_over

    def _watch(self, coordinator: Coordinator) -> None:
        with self._changed:
            while not self._dismissed and (self._deadline is None or not self._deadline.expired):
                self._changed.wait(None if self._deadline is None else self._deadline.left())
            if self._dismissed:
                return
            self._took_over = True
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        coordinator.send(Stalled(STALLED.format("".join(traceback.format_stack(frame)) if frame else "")))
