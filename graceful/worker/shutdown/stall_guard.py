"""A thread that acts upon a stop where the main thread does not: it stands in a Redis command that nobody answers.

A signal handler only records, and the main thread looks at what was recorded when it comes by. A network that is gone
would hold it for as long as the socket's timeout says, and RQ's is minutes long (``Worker.connection_timeout``).
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from graceful.worker.compat.redis_connection import socket_of_main_thread
from graceful.worker.shutdown.exit import started
from graceful.worker.shutdown.os_signals import Inbox

log = logging.getLogger("graceful.worker")


class StallGuard:
    """Looks out from the first signal on.

    Args:
        inbox: what was recorded.
        attend: acts upon it, unless another thread is at that.
        stopping: whether a stop was asked for.
        may_cut: whether what the main thread does in Redis is the worker's own doing, and not a job's.
        patience: how long the main thread may take for one thing, in seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        attend: Callable[[], None],
        stopping: Callable[[], bool],
        may_cut: Callable[[], bool],
        patience: float,
    ) -> None:
        self._inbox = inbox
        self._attend = attend
        self._stopping = stopping
        self._may_cut = may_cut
        self._patience = patience
        self._over = threading.Event()
        self._thread = started(threading.Thread(target=self._look_out, name="graceful-stall_guard", daemon=True))

    def dismiss(self) -> None:
        """The main thread is past everything that could hold it."""
        self._over.set()
        self._inbox.ring()
        if self._thread is not None:
            self._thread.join(self._patience)

    def _look_out(self) -> None:
        while (self._inbox.unread or self._inbox.heard()) and not self._over.is_set():
            before: socket.socket | None = None
            while not self._over.wait(self._patience):
                if self._inbox.unread:
                    self._attend()
                    log.warning("The main thread does not come to act upon a signal")
                if not self._stopping():
                    break
                held_by: socket.socket | None = socket_of_main_thread() if self._may_cut() else None
                if held_by is not None and held_by is before:
                    _cut(held_by)
                    held_by = None
                before = held_by


def _cut(held_by: socket.socket) -> None:
    """End the call that waits for this socket; the socket itself remains its owner's."""
    log.warning("Redis does not answer, its connection is cut")
    try:
        held_by.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It ended by itself meanwhile.
