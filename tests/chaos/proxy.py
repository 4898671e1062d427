"""A TCP proxy between workers and server that cuts, refuses and stalls on request.

One thread and a selector for all connections, each closed with a reset. TLS needs ``tests/support/proxy.py``.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading


class Proxy:
    """Forwards connections to one port, in a thread of its own.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = os.pipe()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._peers: dict[socket.socket, socket.socket] = {}
        self._from_server: set[socket.socket] = set()
        self._cut_after: int | None = None
        self._stalled = False
        self._closing = False
        self.cuts = 0
        self.port = 0
        self.accept()
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def accept(self) -> None:
        """Take connections (again)."""
        with self._lock:
            if self._listener is None:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(64)
                listener.setblocking(False)
                self.port = listener.getsockname()[1]
                self._listener = listener
                self._selector.register(listener, selectors.EVENT_READ)
        self._wake()

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones until :meth:`accept`."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self.cut_all()
        self._wake()

    def cut_all(self) -> None:
        with self._lock:
            for each in list(self._peers):
                self._drop(each)
        self._wake()

    def cut_in_reply(self, after: int) -> None:
        """Let so many more bytes of replies through, and cut that connection in the middle of the one that follows."""
        with self._lock:
            self._cut_after = after

    def stall(self) -> None:
        """Take everything and pass nothing on, as a network that is gone."""
        with self._lock:
            self._stalled = True

    def resume(self) -> None:
        """Pass everything on again; what stalled goes on too."""
        with self._lock:
            self._stalled = False
            self._cut_after = None
        self.accept()

    def close(self) -> None:
        self._closing = True
        self._wake()
        self._thread.join(5)
        self.refuse()
        self._selector.close()
        os.close(self._waker)
        os.close(self._wake_end)

    def _wake(self) -> None:
        os.write(self._wake_end, b"\0")

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                stalled = self._stalled
            if stalled:
                # Only a wake-up is waited for: nothing is read, so that the senders' buffers fill up.
                os.read(self._waker, 64)
                continue
            for key, _ in self._selector.select():
                if key.fileobj == self._waker:
                    os.read(self._waker, 64)
                    continue
                with self._lock:
                    if key.fileobj is self._listener:
                        self._take()
                    elif key.fileobj in self._peers:
                        self._pass_on(key.fileobj)  # type: ignore[arg-type]

    def _take(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port), timeout=5)
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.settimeout(5)
            self._selector.register(each, selectors.EVENT_READ)
        self._peers[client], self._peers[server] = server, client
        self._from_server.add(server)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            chunk = source.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self._drop(source)
            return
        cut = False
        if source in self._from_server and self._cut_after is not None:
            if len(chunk) > self._cut_after:
                chunk, cut = chunk[: self._cut_after], True
                self._cut_after = None
                self.cuts += 1
            else:
                self._cut_after -= len(chunk)
        try:
            if chunk:
                self._peers[source].sendall(chunk)
        except OSError:
            cut = True
        if cut:
            self._drop(source)

    def _drop(self, one: socket.socket) -> None:
        """Close a connection's both ends, with a reset."""
        other = self._peers.pop(one, None)
        if other is None:
            return
        self._peers.pop(other, None)
        for each in (one, other):
            self._from_server.discard(each)
            self._selector.unregister(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()
