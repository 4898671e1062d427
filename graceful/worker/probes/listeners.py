"""The addresses that a worker is probed at, opened before anything else starts."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Any

from graceful import conf
from graceful.exceptions import InvalidSettings
from graceful.setting_reader import MOST_PORT
from graceful.worker.probes.server import ProbeServer
from graceful.worker.probes.vital_signs import VitalSigns
from graceful.worker.shutdown.os_signals import Inbox
from graceful.worker.worker import GracefulMixin

BACKLOG = 64


class Listeners:
    """Listening sockets, and the file of a Unix socket among them."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._file: tuple[str, int] | None = None

    def open_port(self, host: str, port: int, option: str) -> None:
        """Listen on a TCP port.

        Raises:
            InvalidSettings: that is not possible, for instance because the port is in use.
        """
        try:
            family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise InvalidSettings(
                f"--probe-host must be an address of this machine, got: {host!r} ({error})"
            ) from error
        try:
            # A port whose last connections are in TIME_WAIT is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            message = f"{option} must be a port that is free on {host}, got: {port} ({error.strerror or error})"
            raise InvalidSettings(message) from error
        self._listen(listener)

    def open_file(self, path: str) -> None:
        """Listen on a Unix socket; one that a worker has left behind which was killed is replaced.

        Raises:
            InvalidSettings: that is not possible, for instance because another worker listens there.
        """
        rule = "--probe-socket must be a path where a socket can be made"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _remove_stale(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            self._file = path, os.stat(path).st_ino
        except OSError as error:
            listener.close()
            raise InvalidSettings(f"{rule}, got: {path!r} ({error.strerror or error})") from error
        self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self.sockets.append(listener)

    def answer(self, worker: GracefulMixin, inbox: Inbox) -> None:
        """Answer probes of this worker from now on; until then callers wait."""
        ProbeServer(self.sockets, VitalSigns(worker, inbox)).start()

    def remove_file(self) -> None:
        """Remove the Unix socket's file, unless another worker's is there by now."""
        if self._file is not None:
            path, inode = self._file
            with suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)


def listeners(options: dict[str, Any]) -> Listeners:
    """What the options ``--probe-*`` and the setting ask for.

    Raises:
        InvalidSettings: a value is wrong, or an address cannot be listened on.
    """
    given, path = options["probe_port"], options["probe_socket"]
    host = options["probe_host"] or "127.0.0.1"
    port, option = conf.settings().probe_port, "GRACEFUL_PROBE_PORT"
    if given is not None:
        option = "--probe-port"
        if not (given.isdecimal() and given.isascii() and 0 < int(given[:6]) <= MOST_PORT):
            raise InvalidSettings(f"{option} must be a whole number from 1 to {MOST_PORT}, got: {given!r}")
        port = int(given)
    opened = Listeners()
    if port is not None:
        opened.open_port(host, port, option)
    if path is not None:
        opened.open_file(path)
    return opened


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # Whatever it is, it is not ours to remove; bind() says so.
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
