"""A thread that acts upon a stop where the main thread does not: it waits for a Redis that does not answer.

A signal handler only records, and the main thread looks at what was recorded when it comes by. An unreachable network
would hold it for as long as the socket's timeout says.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Protocol

from graceful.threads import started
from graceful.worker.compat.redis_connection import socket_of_main_thread
from graceful.worker.horse.process import JobProcess
from graceful.worker.shutdown.os_signals import Inbox

log = logging.getLogger("graceful.worker")
STALLED = "The main thread did not act upon a signal in time, another one did"
CUT = "Redis does not answer, its connection is cut"
LOOK_SECONDS = 1.0
"""So often it looks whether it is still wanted."""


class Attends(Protocol):
    """Who acts upon what was recorded: the coordinator, or a command that is still starting."""

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""

    def attend(self) -> object:
        """Act upon what was recorded since the last time."""


class StallGuard:
    """Acts where the main thread does not, from the first signal on; while exit hooks run, for all that is asked for.

    It walks the main thread's frames to find the connection that holds it. RQ's ``connection_timeout`` cannot do
    that: it is minutes long, since RQ's blocking commands need it, and a call that waits already keeps the timeout
    with which its connection was made.

    Args:
        inbox: what was recorded.
        attends: acts upon it.
        patience: how long the main thread may take for one thing, in seconds.
        job_process: the process that jobs run in; None while there are none. A job's own calls are not cut.
    """

    def __init__(self, inbox: Inbox, attends: Attends, patience: float, job_process: JobProcess | None = None) -> None:
        self._inbox = inbox
        self._attends = attends
        self._patience = patience
        self._job_process = job_process
        self._over, self._alone, self._attending = threading.Event(), threading.Event(), threading.Event()
        self._thread = started(threading.Thread(target=self._watch, name="graceful-stall-guard", daemon=True))

    def attend_alone(self) -> None:
        """The main thread does not come by any more: it runs exit hooks, whose calls are not cut."""
        self._alone.set()
        self._inbox.ring()
        if self._thread is not None:
            self._attending.wait(self._patience)

    def dismiss(self) -> None:
        """The main thread is past everything that could hold it."""
        self._over.set()
        self._alone.set()
        self._inbox.ring()
        self._inbox.wake()
        if self._thread is not None:
            self._thread.join(self._patience)

    def _watch(self) -> None:
        while (self._inbox.unread or self._inbox.heard()) and not self._alone.is_set():
            before: socket.socket | None = None
            while not self._alone.wait(self._patience):
                if self._inbox.unread:
                    self._attends.attend()
                    log.warning(STALLED)
                if not self._attends.stopping:
                    break
                held_by = self._held_by()
                if held_by is not None and held_by is before:
                    _cut(held_by)
                    held_by = None
                before = held_by
        self._attending.set()
        while not self._over.is_set():
            # Waits as the main thread does, and so also hears of a signal whose handler that one cannot come to.
            self._inbox.wait(LOOK_SECONDS)
            if self._inbox.unread:
                self._attends.attend()

    def _held_by(self) -> socket.socket | None:
        """The socket that the main thread waits for, where it is the worker's own doing."""
        if self._job_process is None or self._job_process.has_main_thread:
            return None
        found: socket.socket | None = socket_of_main_thread()
        return found


def _cut(held_by: socket.socket) -> None:
    """End the call that waits for this socket; the socket itself remains its owner's."""
    log.warning(CUT)
    try:
        held_by.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It ended by itself meanwhile.
