"""SIGHUP to a pool: the parent executes itself anew, with new code, and adopts its workers, which are then replaced.

A fork of the parent as it is would run the old code. Where the new code cannot be loaded nothing happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import IO, NoReturn

from django.utils.autoreload import get_child_arguments

from graceful.jobs.shared_memory import unnamed_file
from graceful.worker.shutdown import os_signals

ADOPTED = "GRACEFUL_POOL_WORKERS"
"""Environment variable of the parent that has executed itself: JSON of the places of its workers."""
OWN = (signal.SIGTTOU, signal.SIGUSR2, signal.SIGHUP)
"""Signals of the parent besides those that every worker captures."""
SHOWN = 2000
"""Characters of what went wrong."""


def start_directory() -> str:
    """Where the process was started, by its name: a symbolic link may lead to another release by the next start."""
    here = os.getcwd()
    name = os.environ.get("PWD", here)
    try:
        return name if os.path.samefile(name, here) else here
    except OSError:
        return here


class NewCode:
    """Whether the new code can be loaded: ``manage.py check`` in a process of its own.

    Args:
        directory: where to start it.
    """

    def __init__(self, directory: str) -> None:
        self._output: IO[bytes] = os.fdopen(unnamed_file(), "w+b")
        self._process = subprocess.Popen(
            [*_command(), "check"], cwd=directory, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        )

    @property
    def known(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def problem(self) -> str:
        """What is wrong with the new code; empty if nothing is. To be asked once, at the end."""
        with self._output:
            self._output.seek(0)
            told = self._output.read().decode(errors="replace")
        return told[-SHOWN:] or "no output" if self._process.returncode else ""

    def stop(self) -> None:
        """It does not matter any more."""
        self._process.kill()
        self._process.wait()
        self._output.close()


def execute(directory: str, places: list[dict[str, int]]) -> NoReturn:
    """Become the new parent. Signals are held back until that has its handlers.

    Args:
        directory: where to start.
        places: what it must know of the workers.

    Raises:
        OSError: that cannot be done.
    """
    os.environ[ADOPTED] = json.dumps(places)
    try:
        with os_signals.blocked():
            signal.pthread_sigmask(signal.SIG_BLOCK, OWN)
            os.chdir(directory)
            command = [*_command(), *sys.argv[1:]]
            os.execv(command[0], command)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OWN)
        del os.environ[ADOPTED]


def adopted() -> list[dict[str, int]]:
    """The places that the parent had before it executed itself; empty in one that was started.

    The signals that have been held back since then come in now: their handlers are there.
    """
    text = os.environ.pop(ADOPTED, None)
    if text is None:
        return []
    os_signals.unblock()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OWN)
    places: list[dict[str, int]] = json.loads(text)
    return places


def _command() -> list[str]:
    """How this process was started, without its arguments."""
    return [str(part) for part in get_child_arguments()][: -len(sys.argv[1:]) or None]
