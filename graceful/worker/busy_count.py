"""Whether other workers beside this one are busy: what protects a container protects all of its workers.

The count is a lock (``flock(2)``) on one file in the spool directory: a busy worker shares it, and only a worker that
can have it alone may say that all are idle. The kernel lets go of it for a worker that is killed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graceful.core.deadline import Deadline
from graceful.reports.spool import Spool

log = logging.getLogger("graceful.worker")
NOT_COUNTED = "Worker %s: busy workers beside it cannot be counted, it speaks for itself alone: %s"
FILE = "busy.lock"
LOOK_SECONDS = 0.02


class BusyCount:
    """This worker's part in the count of the busy workers that share its spool directory.

    Args:
        worker: the worker's name.
        directory: the spool directory.
    """

    def __init__(self, worker: str, directory: Path) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = Spool(directory).open_lock(FILE)
        except OSError as error:
            log.warning(NOT_COUNTED, worker, error)

    def join(self, until: Deadline) -> None:
        """Count as busy; waits while another worker tells that all are idle, so that the later word is the last.

        Args:
            until: when to count no matter what that one does.
        """
        while not self._lock(fcntl.LOCK_SH) and not until.expired:
            time.sleep(LOOK_SECONDS)

    @contextmanager
    def left(self) -> Iterator[bool]:
        """Count as idle; True where no other worker is busy, nor becomes so in this block."""
        alone = self._lock(fcntl.LOCK_EX)
        try:
            yield alone
        finally:
            self._lock(fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # A hook has closed every descriptor there is.
                os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, kind: int) -> bool:
        if self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # A file system without locks.
            self.close()
        return True
