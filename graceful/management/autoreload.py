"""``runworker_graceful --autoreload``: the worker runs in a child process, which is replaced when code changes.

Django's own loop (``django.utils.autoreload.run_with_reloader``) will not do: it runs a command in a thread, where no
signal arrives, and leaves the process in the middle of a job. Its list of files is used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader, get_child_arguments

from graceful.worker.horse import parent_death
from graceful.worker.shutdown.os_signals import Inbox

CHILD = "GRACEFUL_AUTORELOAD_CHILD"
"""Environment variable of the child: it is the worker."""
LOOK_SECONDS = 0.5


def is_child() -> bool:
    """Whether this process is the worker that another one replaces; it then ends with that one."""
    if os.environ.pop(CHILD, None) is None:
        return False
    parent_death.watch(os.getppid(), signal.SIGTERM)
    return True


def run(inbox: Inbox, tell: Callable[[str], None]) -> int:
    """Run the worker in a child until it ends by itself or is told to; start another one when code changes.

    A worker that is replaced ends gracefully. One that fails, for instance because the new code cannot be imported, is
    started again at the next change.

    Args:
        inbox: what is asked of this process: stop and quiet signals go to the child as they come.
        tell: shows a line to the developer.

    Returns:
        the exit code of the last worker, 128 and the signal's number more where a signal has ended it.
    """
    files = _Files()
    while True:
        # A process group of its own: Ctrl+C in a terminal comes here alone, and is passed on once.
        child = subprocess.Popen(get_child_arguments(), env={**os.environ, CHILD: "1"}, process_group=0)
        changed = stopped = False
        while child.poll() is None:
            while (received := inbox.next()) is not None:
                stopped |= received.name in ("SIGTERM", "SIGINT")
                child.send_signal(signal.Signals[received.name])
            if not changed and not stopped and (path := files.changed()):
                changed = True
                tell(f"{path} changed, restarting the worker")
                child.send_signal(signal.SIGTERM)
            inbox.wait(LOOK_SECONDS)
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        if stopped or (code == os.EX_OK and not changed):
            return code
        if not changed:
            tell(f"The worker has ended with exit code {code}; it is started again when code changes")
            while not files.changed():
                inbox.wait(LOOK_SECONDS)
                if inbox.unread:
                    return code


class _Files:
    """The project's Python files: those of loaded modules, of its apps, and beside ``manage.py``."""

    def __init__(self) -> None:
        self._reloader = StatReloader()
        installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
        for app in apps.get_app_configs():
            if not any(Path(app.path).is_relative_to(each) for each in installed):
                self._reloader.watch_dir(app.path, "**/*.py")
        self._reloader.watch_dir(Path.cwd(), "*.py")
        self._seen = dict(self._reloader.snapshot_files())

    def changed(self) -> Path | None:
        """A file that is newer, new, or gone since the last call; None if all are as they were."""
        before, self._seen = self._seen, dict(self._reloader.snapshot_files())
        return next((path for path, _at in before.items() ^ self._seen.items()), None)
