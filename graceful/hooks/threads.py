"""Background threads that have to be stopped before the process ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from graceful.core.deadline import Deadline

MARGIN_SECONDS = 0.1
"""Reserved of the hook's time, so that it can still report which threads did not stop."""


class ThreadsStillRunning(RuntimeError):
    """Registered threads did not stop in time, or their ``stop`` failed; the message names them."""


@dataclass(frozen=True, slots=True)
class _Registered:
    thread: threading.Thread
    stop: Callable[[], object]
    timeout: float | None
    pid: int


_registered: list[_Registered] = []


def register_thread(
    thread: threading.Thread, stop: threading.Event | Callable[[], object], timeout: float | None = None
) -> None:
    """Have a thread stopped by the exit hook ``graceful.hooks.builtin.stop_threads``.

    Registering it again replaces the earlier registration. A forked child has none of its parent's threads.

    Args:
        thread: the thread, started or not.
        stop: asks the thread to stop: an event that is set, or a function that is called. It must not block.
        timeout: seconds at most to wait for this thread, or None for as long as the hook may take.

    Raises:
        TypeError: ``thread`` is no thread, or ``stop`` neither an event nor callable.
    """
    if not isinstance(thread, threading.Thread):
        raise TypeError(f"register_thread takes a threading.Thread, got: {thread!r}")
    if not isinstance(stop, threading.Event) and not callable(stop):
        raise TypeError(f"register_thread takes a threading.Event or a callable as stop, got: {stop!r}")
    ask = stop.set if isinstance(stop, threading.Event) else stop
    own = os.getpid()
    _registered[:] = [
        entry for entry in _registered if entry.pid == own and entry.thread is not thread and _may_run(entry.thread)
    ]
    _registered.append(_Registered(thread, ask, timeout, own))


def stop_registered(deadline: Deadline) -> list[str]:
    """Ask all registered threads to stop, then join each.

    Args:
        deadline: until when to wait.

    Returns:
        names of the threads that were running and have stopped.

    Raises:
        ThreadsStillRunning: some have not stopped, or their ``stop`` failed; the others have been stopped.
    """
    entries = [entry for entry in _registered if entry.pid == os.getpid() and _may_run(entry.thread)]
    troubles = [*_ask_to_stop(entries)]
    stopped = []
    for entry in entries:
        if entry.thread.ident is None or entry.thread is threading.current_thread():
            continue
        seconds = deadline.left() if entry.timeout is None else min(entry.timeout, deadline.left())
        entry.thread.join(seconds)
        if entry.thread.is_alive():
            troubles.append(f"{entry.thread.name} still runs")
        else:
            stopped.append(entry.thread.name)
    _registered[:] = [entry for entry in _registered if _may_run(entry.thread)]
    if troubles:
        raise ThreadsStillRunning("; ".join(troubles))
    return stopped


def _ask_to_stop(entries: Iterable[_Registered]) -> Iterable[str]:
    for entry in entries:
        try:
            entry.stop()
        except Exception as error:
            yield f"{entry.thread.name} could not be asked to stop: {type(error).__name__}: {error}"


def _may_run(thread: threading.Thread) -> bool:
    """Whether a thread runs, or has not been started yet."""
    return thread.is_alive() or thread.ident is None
