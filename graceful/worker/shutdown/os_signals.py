"""Signals are recorded here, and acted upon elsewhere.

The handler appends to a list and nothing more. What makes a waiting loop look at that list is the wakeup
descriptor (``signal.set_wakeup_fd``): the interpreter writes to it from the C-level handler, so a loop that waits
in :meth:`Inbox.wait` leaves its wait at once, whatever else it is waiting for.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

from graceful.worker.shutdown.way_out import WayOut

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHUTDOWN_COMMAND = "shutdown"
"""RQ's command, recorded like a signal."""
QUIET_COMMAND, RESUME_COMMAND = "quiet", "resume"
"""Commands of ours on RQ's channel. A stock worker and earlier versions ignore what they do not know
(``rq.command.handle_command``, 2.6.1 to 3.0.0)."""
COMMANDS = (SHUTDOWN_COMMAND, QUIET_COMMAND, RESUME_COMMAND)
QUIET_SIGNAL = signal.SIGTSTP
STACKS_SIGNAL = signal.SIGTTIN
INTERRUPT_SIGNAL = signal.SIGURG
"""Sent to a horse at the soft limit. Its default is to be ignored, so it harms no horse that is still starting."""
CAPTURED = (*STOP_SIGNALS, QUIET_SIGNAL, STACKS_SIGNAL)
STAND_IN_SECONDS = 0.3
"""A signal of which the main thread has recorded nothing for so long is recorded by another thread."""
RECORD_SECONDS = 0.02
"""Of one signal at most one is recorded in so many seconds: far less than what two requests are apart that count."""
CLOSED_SECONDS = 0.05
"""How long to wait where nothing can wake us any more."""


class Received(NamedTuple):
    """One request from outside: a signal's name or one of :data:`COMMANDS`, and when it came (monotonic)."""

    name: str
    at: float


class Inbox:
    """What was asked of this process, in the order in which it came."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._read = 0
        self._recorded_at: dict[int, float] = {}
        self._listed_at: dict[int, float] = {}
        self._noticed_at: dict[int, float] = {}
        self._stood_in: set[int] = set()
        self.pid = os.getpid()
        self.due_at = time.monotonic()
        """When whoever attends to it comes by again at the latest: the loop's sign of life."""
        self.told_to_stop = False
        """Whether this process is on its way out when the capture ends, because somebody asked for that."""
        # Sockets rather than a pipe: another process can look at what lies in one, and leave it there.
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._bell, self._bell_rope = socket.socketpair()
        self._bell_rope.setblocking(False)

    def record(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: it only records.

        Signals may come faster than it takes to record one, and each interrupts the handler of the one before
        (Python's handlers are not masked): without a limit the main thread would run out of stack over them.
        """
        now = time.monotonic()
        self._recorded_at[signum] = now
        if signum in self._stood_in:  # See _stand_in: another thread was quicker.
            self._stood_in.discard(signum)
            return
        if now - self._listed_at.get(signum, -RECORD_SECONDS) < RECORD_SECONDS:
            return
        self._listed_at[signum] = now
        self.received.append(Received(signal.Signals(signum).name, now))
        # The interpreter has woken a waiting thread before it came here; that one may have looked too early.
        self.wake()
        self.ring()

    def install(self) -> tuple[dict[signal.Signals, Any], int]:
        """Have signals come here, for the first time or again; main thread only.

        Returns:
            the handlers before, by signal, and the wakeup descriptor before.

        Raises:
            OSError, ValueError: the handlers are there, but the socket has been closed.
        """
        old: dict[signal.Signals, Any] = {signum: signal.signal(signum, self.record) for signum in CAPTURED}
        # A handler in Python is what makes the interpreter write to the wakeup descriptor when a child ends.
        old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _nothing)
        return old, signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    @property
    def unread(self) -> bool:
        """Whether there is something that :meth:`next` has not given out yet."""
        return self._read < len(self.received)

    def next(self) -> Received | None:
        """What came next, or None."""
        if not self.unread:
            return None
        self._read += 1
        return self.received[self._read - 1]

    def record_command(self, name: str) -> None:
        """Record a request that came another way, from any thread, and wake the loop."""
        self.received.append(Received(name, time.monotonic()))
        self.wake()
        self.ring()

    def wake(self) -> None:
        """Make a :meth:`wait` return early, from any thread."""
        try:
            self._writer.send(b"\0")
        except OSError:
            pass  # It is full of wake-ups already, or a hook has closed every descriptor there is.

    def ring(self) -> None:
        """Make :meth:`heard` return, from any thread."""
        try:
            self._bell_rope.send(b"\0")
        except OSError:
            pass  # It rings already, or nobody listens any more.

    def heard(self) -> bool:
        """Wait, in another thread than those that :meth:`wait`, until something is recorded; False at the end."""
        try:
            return bool(self._bell.recv(4096))
        except OSError:
            return False

    def comes_by(self, again_within: float = 0.0) -> None:
        """Whoever attends to it is alive, and comes by again within so many seconds."""
        self.due_at = time.monotonic() + again_within

    def wait(self, seconds: float, others: Sequence[Any] = ()) -> list[Any]:
        """Wait until a signal comes, one of ``others`` (sockets) can be read, or the time is up.

        Args:
            seconds: how long to wait at most.
            others: further objects with a ``fileno()``.

        Returns:
            Those of ``others`` that can be read; a wake-up by a signal returns early.
        """
        poll = select.poll()
        by_descriptor = {other.fileno(): other for other in others}
        for descriptor in (self.reader.fileno(), *by_descriptor):
            poll.register(descriptor, select.POLLIN)
        if self._noticed_at:
            seconds = min(seconds, STAND_IN_SECONDS)
        # poll() counts whole milliseconds; rounding up keeps a short wait from becoming a busy loop.
        self.comes_by(again_within=seconds)
        events = poll.poll(max(0, int(seconds * 1000 + 0.999)))
        self.comes_by()
        ready = [descriptor for descriptor, _ in events]
        if self.reader.fileno() in ready:
            try:
                while self._notice(self.reader.recv(4096)) == 4096:
                    pass
            except OSError:
                pass  # There is no more, or it has been closed.
        if any(event & select.POLLNVAL for _, event in events):
            time.sleep(min(seconds, CLOSED_SECONDS))  # A job without a horse has closed descriptors of its worker.
        self._stand_in()
        return [by_descriptor[descriptor] for descriptor in ready if descriptor in by_descriptor]

    def _notice(self, woken_by: bytes) -> int:
        now = time.monotonic()
        for signum in CAPTURED:
            if signum in woken_by:
                self._noticed_at.setdefault(signum, now)
        return len(woken_by)

    def _stand_in(self) -> None:
        """Record signals in the place of the main thread, which stands in C code and comes to no handler.

        The interpreter calls handlers in the main thread alone, and a database's client or a long query takes no
        notice of a signal. But its number has come through the wakeup socket.
        """
        if threading.current_thread() is threading.main_thread():
            self._noticed_at.clear()
            return
        now = time.monotonic()
        for signum, at in list(self._noticed_at.items()):
            if self._recorded_at.get(signum, 0.0) > at - STAND_IN_SECONDS:
                self._noticed_at.pop(signum, None)
            elif now - at >= STAND_IN_SECONDS:
                self._noticed_at.pop(signum, None)
                self._stood_in.add(signum)
                self.received.append(Received(signal.Signals(signum).name, at))
                self.ring()

    def close(self) -> None:
        for end in (self.reader, self._writer, self._bell_rope, self._bell):
            with suppress(OSError):  # An exit hook may have closed every descriptor there is.
                end.close()


_active: Inbox | None = None
_way_out: WayOut | None = None


@contextmanager
def capture() -> Iterator[Inbox]:
    """Record stop, quiet and stack signals for the time of the ``with`` block; the old handlers come back after it.

    Where the process was told to stop (:attr:`Inbox.told_to_stop`), handlers that would end it come back a second
    later: see :class:`WayOut`. A process that ends inside the block keeps the handlers to its end.

    Inside another capture of the same process this one joins it. Main thread only (``signal.signal``'s rule).
    """
    global _active, _way_out
    if _active is not None and _active.pid == os.getpid():
        yield _active
        return
    if _way_out is not None:
        _way_out.end()
        _way_out = None
    inbox = Inbox()
    old_handlers, old_wakeup = inbox.install()
    _active = inbox
    try:
        yield inbox
    finally:
        # A forked child that unwinds through here has nothing to put back: see _forget.
        if inbox.pid == os.getpid():
            _active = None
            try:
                signal.set_wakeup_fd(old_wakeup)
            except (OSError, ValueError):
                signal.set_wakeup_fd(-1)  # It has been closed meanwhile.
            if inbox.told_to_stop:
                deadly = (signal.SIG_DFL, signal.default_int_handler)
                _way_out = WayOut(
                    {signum: old_handlers.pop(signum) for signum in STOP_SIGNALS if old_handlers[signum] in deadly}
                )
            for signum, handler in old_handlers.items():
                signal.signal(signum, handler)
            inbox.close()


@contextmanager
def blocked() -> Iterator[None]:
    """Hold back every signal that a worker or a horse handles, so that a child is born before it can be hit."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, (*CAPTURED, INTERRUPT_SIGNAL))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def unblock() -> None:
    """In a child: let through what :func:`blocked` held back in the parent."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*CAPTURED, INTERRUPT_SIGNAL))


def _nothing(signum: int, frame: FrameType | None) -> None:
    pass


def _forget() -> None:
    """In a forked child: the parent's wakeup socket is shared, and must not hear of the child's signals."""
    global _active, _way_out
    if _way_out is not None:
        _way_out.end()
        _way_out = None
    inbox, _active = _active, None
    if inbox is not None:
        signal.set_wakeup_fd(-1)
        for signum in CAPTURED:
            if signal.getsignal(signum) == inbox.record:
                signal.signal(signum, signal.SIG_DFL)
        if signal.getsignal(signal.SIGCHLD) is _nothing:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
