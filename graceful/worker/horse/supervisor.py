"""Beside a worker that runs jobs in its own process: a process that can still act when the worker cannot.

A job in C code may hold the GIL. Then no Python runs in the worker: no signal handler, no thread, nobody to arm a
watchdog. But the interpreter's C-level handler still writes the signal's number to the wakeup socket
(``signal.set_wakeup_fd``), and another process can look at what lies there unread. If a stop lies there for the whole
grace period, the supervisor kills the worker. Whenever the worker dies, it closes the report and requeues the job.

It polls at 20 Hz: what it waits for, the worker's death and an unread signal, wakes it by no file descriptor on
macOS, and the bytes have to stay unread. That costs under 0.1 % of a core.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time

from graceful.core.deadline import Deadline
from graceful.jobs.shared_memory import SharedMemory
from graceful.worker.cluster.reaper import Reaper
from graceful.worker.shutdown.exit import leave_by
from graceful.worker.shutdown.os_signals import STOP_SIGNALS, Inbox, blocked

log = logging.getLogger("graceful.worker")
LOOK_SECONDS = 0.05
MARGIN_SECONDS = 0.1
"""How much later than the worker's own watchdog it kills."""
CLOSE_SECONDS = 5.0
"""How long closing the report and a job's failure callback may take; a reaper does it otherwise."""
STOPS = frozenset(int(signum) for signum in STOP_SIGNALS)


class Supervisor:
    """The worker's handle on its supervisor.

    Args:
        inbox: the worker's inbox, whose socket is looked at.
        memory: where the worker announces its limits.
        timeout: the grace period in seconds.
        reaper: closes the dead worker's report and requeues its job, in the supervisor.
        worker_id: the worker's id.
    """

    def __init__(self, inbox: Inbox, memory: SharedMemory, timeout: float, reaper: Reaper, worker_id: str) -> None:
        self._inbox = inbox
        self._memory = memory
        self._timeout = timeout
        self._reaper = reaper
        self._worker_id = worker_id
        self._worker_pid = os.getpid()
        with blocked():
            self.pid = os.fork()
            if self.pid == 0:
                self._supervise()

    def dismiss(self) -> None:
        """End it: the worker has come to its end by itself."""
        # A job may have waited for all children there are, or have left SIGCHLD ignored, so that nobody need wait.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _supervise(self) -> None:
        """In the supervisor, with all stop signals held back for good: it goes when the worker is gone."""
        code = os.EX_OK
        try:
            self._watch()
            # A Redis or a database that does not answer must not keep it, nor a job's failure callback.
            leave_by(os.EX_SOFTWARE, CLOSE_SECONDS)
            self._reaper.close(self._worker_id)
        except BaseException:
            log.exception("The supervisor of worker process %d failed", self._worker_pid)
            code = os.EX_SOFTWARE
        finally:
            os._exit(code)

    def _watch(self) -> None:
        unread_since: float | None = None
        while os.getppid() == self._worker_pid:
            if not self._stop_unread():
                unread_since = None
            elif unread_since is None:
                unread_since = time.monotonic()
            limits = self._memory.limits
            end = limits.end if limits else Deadline.after(self._timeout)
            if unread_since is not None:
                end = min(end, Deadline(unread_since + self._timeout))
            if end.earlier(-MARGIN_SECONDS if limits else 0).expired:
                log.error("Worker process %d does not end by itself, killing it", self._worker_pid)
                os.kill(self._worker_pid, signal.SIGKILL)
                while os.getppid() == self._worker_pid:
                    time.sleep(0.01)
                return
            time.sleep(LOOK_SECONDS)

    def _stop_unread(self) -> bool:
        try:
            waiting = self._inbox.reader.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return not STOPS.isdisjoint(waiting)
