"""Exit hooks, log handlers and receivers that turn against the process that they are in."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from graceful.signals import shutdown_finished


def closes_all_descriptors() -> None:
    """Closes everything that the process has open, as a daemon's start does."""
    os.closerange(3, 1024)


def fills_the_output() -> None:
    """From here on the standard streams go into a pipe that is full, and that nobody reads."""
    _reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    os.dup2(writer, 1)
    os.dup2(writer, 2)


def after() -> str:
    """Stands behind the others."""
    return "ran"


def hangs_at_exit() -> None:
    """Leaves an atexit function that hangs."""
    atexit.register(time.sleep, 60)


def hangs_at_exit_with_the_gil() -> None:
    """Leaves an atexit function that hangs in C, and does not let go of the GIL."""
    atexit.register(ctypes.PyDLL(None).sleep, 60)


def leaves_a_receiver_that_hangs() -> None:
    """Connects a receiver to the last signal of a worker that does not return."""
    shutdown_finished.connect(_hangs, weak=False)


def _hangs(**kwargs: Any) -> None:
    threading.Event().wait(60)


class StuckHandler(logging.Handler):
    """A log whose reader is gone: it holds everybody who writes, once the file ``TEST_STUCK`` is there."""

    def emit(self, record: logging.LogRecord) -> None:
        while Path(os.environ["TEST_STUCK"]).exists():
            time.sleep(1)


def is_stopped_at_exit() -> None:
    """Leaves an atexit function behind that finds the process being told to stop."""
    atexit.register(os.kill, os.getpid(), signal.SIGTERM)
