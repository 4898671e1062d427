"""A real terminal: a process has one end of a pseudo-terminal, the test looks at the other and presses keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGKILL, signal
from typing import Any

from tests.support.processes import ROOT, pids_in_session
from tests.support.waiting import NeverHappened, wait_until

CTRL_C, STOP, GO_ON = b"\x03", b"\x13", b"\x11"
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


class TerminalProcess:
    """``python -m django ...`` on a terminal of its own, which is its controlling one.

    Args:
        arguments: what follows ``python -m django``.
        environment: added to the environment.
        columns: width of the terminal.
        stdout: where stdout goes instead: an open file.
        nohup: whether SIGHUP is ignored, as ``nohup`` has it.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        columns: int = 300,
        stdout: Any = None,
        nohup: bool = False,
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

        def prepare() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # As an interactive shell starts its jobs; a background job ignores SIGINT, and so would its children.
            signal(SIGINT, SIG_DFL)
            signal(SIGHUP, SIG_IGN if nohup else SIG_DFL)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            stdin=slave,
            stdout=stdout or slave,
            stderr=slave,
            env={**environ, "TERM": "xterm-256color", **environment},
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=prepare,
        )
        os.close(slave)
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def raw(self) -> str:
        """Everything that was written to the terminal."""
        return self._seen.decode("utf-8", "replace")

    @property
    def screen(self) -> list[str]:
        """The lines as a person sees them."""
        return shown(self.raw)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait_seen(self, pattern: str, seconds: float = 15.0) -> re.Match[str]:
        """Wait until something was written to the terminal, whether or not it is still there."""
        return wait_until(lambda: re.search(pattern, self.raw), seconds, lambda: f"{pattern!r} in:\n{self.raw}")

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for its end, and until all that it wrote is there; return the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NeverHappened(f"it still runs after {seconds} s:\n{self.raw}") from None
        self._reader.join(5)
        return code

    def hang_up(self) -> None:
        """The terminal is gone, as when its window is closed; what the process writes from then on fails."""
        gone = os.open(os.devnull, os.O_RDONLY)
        os.dup2(gone, self.master)  # The reader lets go of the terminal at the next thing that is written.
        os.close(gone)

    def close(self) -> None:
        for pid in {self.process.pid, *pids_in_session(self.process.pid)}:
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(5)
        self._reader.join(5)
        os.close(self.master)

    def _read(self) -> None:
        while True:
            try:
                more = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the other end any more.
                return
            if not more:
                return
            self._seen += more


def shown(text: str) -> list[str]:
    """What a terminal shows after it was sent ``text``: line breaks, carriage returns, and the clearing of lines."""
    lines, row, column = [""], 0, 0
    for parameters, command, char in TOKEN.findall(text):
        if command == "K":
            lines[row] = lines[row][:column]
        elif command == "J" or (command == "H" and not parameters):
            lines, row, column = [""], 0, 0
        elif char == "\r":
            column = 0
        elif char == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif char and (char.isprintable()):
            lines[row] = f"{lines[row]:<{column}}"[:column] + char + lines[row][column + 1 :]
            column += 1
    return lines
