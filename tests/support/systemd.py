"""The socket of a service manager, which takes down what it is told."""

from __future__ import annotations

import socket
import threading

CLOSED = b"closed"


class NotifySocket:
    """What ``NOTIFY_SOCKET`` names.

    Args:
        address: a path, or a name that begins with ``@`` and is in no file system.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[str] = []
        self._own = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._own)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """Each assignment, in the order in which they came."""
        return [line for message in self.messages for line in message.split("\n")]

    def said(self, start: str) -> list[str]:
        """The lines that begin so."""
        return [line for line in self.lines if line.startswith(start)]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(CLOSED, self._own)
        self._thread.join(5)
        self._socket.close()

    def _read(self) -> None:
        while (message := self._socket.recv(65536)) != CLOSED:
            self.messages.append(message.decode())
