"""Tells systemd how the worker is, where it has started it with ``Type=notify`` or ``WatchdogSec=`` (sd_notify(3)).

Read in systemd 246 to 257 (src/core/service.c): its watchdog holds while a unit runs, and ends when the unit stops; a
``WATCHDOG=1`` that comes after that winds it up once more, with the usual time. ``EXTEND_TIMEOUT_USEC`` moves both the
stop's timeout and that watchdog out, and never in. So what a stopping worker sends comes in this order, and neither can
end it before its grace period is over.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from graceful import signals
from graceful.core.phases import Phase
from graceful.core.records import ShutdownReport
from graceful.core.text import one_line
from graceful.threads import started
from graceful.worker.probes.vital_signs import VitalSigns
from graceful.worker.shutdown.os_signals import Inbox

if TYPE_CHECKING:
    from graceful.worker.worker import GracefulMixin

log = logging.getLogger("graceful.worker")
NOT_TOLD = "%s: systemd cannot be told how it is: %s"

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
SEND_SECONDS = 0.2
"""How long systemd may take to make room for a message."""
STATUS_SECONDS, STOPPING_SECONDS = 5.0, 1.0
"""The status is looked at so often; with seconds left, more often."""


class Notifier:
    """The way to systemd.

    The variables of sd_notify are out of the environment meanwhile: jobs and what they start are not the unit's main
    process, and what they might say is not of it.

    Args:
        who: for the log.

    Raises:
        OSError: there is no way.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._environment: dict[str, str] = {}
        self.take_environment()
        self.ping_seconds = _ping_seconds(self._environment)
        """Between two ``WATCHDOG=1``; 0 without a watchdog."""
        self._over, self._sending = False, threading.Lock()
        address = self._environment["NOTIFY_SOCKET"]
        # "@" stands for the zero byte of a name that is in no file system.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)

    def take_environment(self) -> None:
        self._environment = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}

    def restore_environment(self) -> None:
        os.environ.update(self._environment)

    def send(self, *lines: str, last: bool = False) -> None:
        """Send a message; nothing is sent after the last one."""
        with self._sending:
            if self._over or self._socket is None:
                return
            self._over = last
            try:
                self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
                return
            except TimeoutError:
                return  # It has fallen behind; there will be another message.
            except OSError as error:
                self._socket, why = None, error
        log.warning(NOT_TOLD, self._who, why)


class Systemd:
    """What one worker tells systemd, from a thread of its own.

    Args:
        worker: the worker, whose session has begun.
        inbox: what it attends to.
        worker_id: its id.
        notifier: the way to systemd.
    """

    def __init__(self, worker: GracefulMixin, inbox: Inbox, worker_id: str, notifier: Notifier) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._pid = os.getpid()
        self._signs = VitalSigns(worker, inbox)
        self._notifier = notifier
        self._ping_at = 0.0
        self._said = ""
        self._over, self._changed = False, threading.Event()
        signals.worker_started.connect(self._ready)
        signals.shutdown_requested.connect(self._stopping)
        signals.shutdown_finished.connect(self._finished)
        started(threading.Thread(target=self._tell, name="graceful-systemd", daemon=True))

    def end(self) -> None:
        """Say nothing more; the environment is as before."""
        self._over = True
        self._changed.set()
        signals.worker_started.disconnect(self._ready)
        signals.shutdown_requested.disconnect(self._stopping)
        signals.shutdown_finished.disconnect(self._finished)
        self._notifier.restore_environment()

    # At once, in the thread in which it happens: a burst may be over before another thread has said that it began.

    def _ready(self, worker: str, **_: object) -> None:
        if self._is_of(worker):
            self._notifier.send("READY=1")
            self._changed.set()

    def _stopping(self, worker: str, **_: object) -> None:
        if self._is_of(worker):
            self._notifier.send("STOPPING=1", *self._status())
            self._changed.set()

    def _finished(self, report: ShutdownReport, **_: object) -> None:
        if report.id == self._worker_id and os.getpid() == self._pid:
            self._over = True
            self._notifier.send(f"STATUS={report.outcome}, exit code {report.exit_code}", last=True)

    def _is_of(self, worker: str) -> bool:
        return worker == self._worker.name and os.getpid() == self._pid

    def _tell(self) -> None:
        while not self._over:
            state = self._signs.state
            drained = state is not None and state.drained_at is not None
            now = time.monotonic()
            if self._notifier.ping_seconds and now >= self._ping_at and not drained and not self._signs.why_not_alive():
                self._notifier.send("WATCHDOG=1")
                self._ping_at = now + self._notifier.ping_seconds
            status = self._status()
            stopping = len(status) > 1
            if status[0] != self._said or stopping:
                self._said = status[0]
                self._notifier.send(*status)
            self._changed.clear()
            seconds = STOPPING_SECONDS if stopping else STATUS_SECONDS
            self._changed.wait(min(self._notifier.ping_seconds or seconds, seconds))

    def _status(self) -> list[str]:
        """The words for ``systemctl status``; of a worker that stops also how long systemd has to wait."""
        state = self._signs.state
        if state is None or state.limits is None:
            why = self._signs.why_not_ready()
            return [f"STATUS={why or 'takes jobs'}"]
        left = state.limits.end.left()
        doing = f"exit hook {one_line(state.hook)}" if state.phase is Phase.HOOKS and state.hook else str(state.phase)
        return [f"STATUS={doing}, {left:.0f} s left", f"EXTEND_TIMEOUT_USEC={int(left * 1e6)}"]


def _ping_seconds(environment: dict[str, str]) -> float:
    """Half of the watchdog's time, in seconds, as sd_watchdog_enabled(3) recommends; 0 where there is none for us."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / 2e6


def notifier(who: str) -> Notifier | None:
    """The way to systemd; None, which is logged, where there is none."""
    try:
        return Notifier(who)
    except OSError as error:
        log.warning(NOT_TOLD, who, error)
        return None


def begin(worker: GracefulMixin, inbox: Inbox, worker_id: str) -> Systemd | None:
    """Begin to tell systemd; None where that is not possible."""
    way = notifier(f"Worker {worker.name}")
    return None if way is None else Systemd(worker, inbox, worker_id, way)
