"""A TCP proxy in front of a server, which a test can cut in the middle; with TLS if it is given a certificate.

A thread per connection, because TLS buffers data that no selector sees. The chaos suite has its own
(``tests/chaos/proxy.py``), which refuses, stalls, resets and cuts within a reply, at hundreds of connections in one
thread; it cannot do TLS.
"""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from types import TracebackType


class Proxy:
    """Passes bytes on, until it is told not to.

    Args:
        port: the server's port on 127.0.0.1.
        tls: speak TLS with the client, with this certificate and key.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = port
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._swallow_replies = False
        self._closing = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def cut_replies(self) -> None:
        """From now on the server's next reply is swallowed, and the connection that it was for is cut."""
        self._swallow_replies = True

    def restore(self) -> None:
        """Pass everything on again, over new connections."""
        self._swallow_replies = False

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for each in pair:
                _close(each)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            _close(client)
            return
        with self._lock:
            self._pairs.append((client, server))
        try:
            while True:
                pending = isinstance(client, ssl.SSLSocket) and client.pending()
                ready = [client] if pending else select.select([client, server], [], [])[0]
                for source in ready:
                    chunk = source.recv(65536)
                    if not chunk or (source is server and self._swallow_replies):
                        return
                    (server if source is client else client).sendall(chunk)
        except (OSError, ValueError):
            return
        finally:
            _close(client)
            _close(server)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing = True
        _close(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(2)


def _close(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, made by the ``openssl`` command."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """The server's side of TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context
