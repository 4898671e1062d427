"""Answers probes over HTTP: a worker's in a thread, a pool's in the loop of its parent.

One for all callers, who are few: what it says is short and at hand. A caller has a deadline for its request, and of too
many at once the oldest is dropped, so nobody can keep the others from an answer.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from graceful.threads import started

log = logging.getLogger("graceful.worker")
FAILED = "A probe could not be answered"
NOT_LISTENING = "Probes are not answered any more: %s"

MOST_CALLERS = 16
LONGEST_REQUEST = 4096
REQUEST_SECONDS = 2.0
"""How long a caller may take for its request."""
PAUSE_SECONDS = 0.2
"""Before the next try where no file descriptor is left for a caller."""
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Signs(Protocol):
    """What is known of whoever is probed; each answer comes at once."""

    def why_not_alive(self) -> str: ...

    def why_not_ready(self) -> str: ...

    def status(self) -> dict[str, Any]: ...


class ProbeServer:
    """Answers ``/live``, ``/ready`` and ``/status``, for GET and HEAD.

    Args:
        listeners: sockets that listen, non-blocking.
        signs: what is known of who is probed.
    """

    def __init__(self, listeners: Sequence[socket.socket], signs: Signs) -> None:
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._signs = signs
        self._callers: dict[int, _Caller] = {}
        # A fork holds the port of a worker that is gone, and its caller would wait for the fork's end.
        os.register_at_fork(after_in_child=self._close)

    def start(self) -> None:
        """Answer in a thread from now on."""
        started(threading.Thread(target=self._serve, name="graceful-probes", daemon=True))

    def _close(self) -> None:
        for each in (*self._listeners.values(), *(caller.socket for caller in self._callers.values())):
            each.close()

    def _serve(self) -> None:
        try:
            while self._listeners:
                self.look(None)
        except Exception as error:  # A job without a horse may have closed every descriptor there is.
            log.warning(NOT_LISTENING, error)

    @property
    def sockets(self) -> list[socket.socket]:
        """Where something may come: for a loop that calls :meth:`look` then."""
        return [*self._listeners.values(), *(caller.socket for caller in self._callers.values())]

    def look(self, seconds: float | None) -> None:
        """Answer whoever has asked, waiting at most so long for one; None is as long as it takes."""
        poll = select.poll()
        for descriptor in (*self._listeners, *self._callers):
            poll.register(descriptor, select.POLLIN)
        if seconds is None and self._callers:
            first = min(caller.until for caller in self._callers.values())
            seconds = max(0.0, first - time.monotonic() + 0.001)
        for descriptor, event in poll.poll(None if seconds is None else seconds * 1000):
            if event & select.POLLNVAL:
                raise OSError("its socket was closed")
            if descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
            elif descriptor in self._callers:
                self._hear(descriptor)
        for descriptor in [each for each, caller in self._callers.items() if time.monotonic() >= caller.until]:
            self._callers.pop(descriptor).socket.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _address = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # It has gone again.
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            time.sleep(PAUSE_SECONDS)
            return
        connection.setblocking(False)
        if len(self._callers) >= MOST_CALLERS:
            self._callers.pop(next(iter(self._callers))).socket.close()
        self._callers[connection.fileno()] = _Caller(connection)

    def _hear(self, descriptor: int) -> None:
        caller = self._callers[descriptor]
        try:
            more = caller.socket.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        caller.said += more
        whole = b"\r\n\r\n" in caller.said or b"\n\n" in caller.said
        if more and not whole and len(caller.said) < LONGEST_REQUEST:
            return
        del self._callers[descriptor]
        with caller.socket as connection:
            if more:
                try:
                    # So small that it fits into the buffer of a socket that has sent nothing yet.
                    connection.send(_message(*self._answer(caller.said if whole else b"")))
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # The caller has gone.

    def _answer(self, request: bytes) -> tuple[bytes, int, str]:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return method, 400, "an HTTP request was expected\n"
        if method not in (b"GET", b"HEAD"):
            return method, 405, "only GET and HEAD are allowed\n"
        try:
            match target.partition(b"?")[0]:
                case b"/live":
                    why = self._signs.why_not_alive()
                case b"/ready":
                    why = self._signs.why_not_ready()
                case b"/status":
                    return method, 200, json.dumps(self._signs.status()) + "\n"
                case _:
                    return method, 404, "there are /live, /ready and /status\n"
        except Exception:
            log.exception(FAILED)
            return method, 500, "see the worker's log\n"
        return method, 503 if why else 200, f"{why or 'ok'}\n"


class _Caller:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.said = b""
        self.until = time.monotonic() + REQUEST_SECONDS


def _message(method: bytes, status: int, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {'application/json' if text.startswith('{') else 'text/plain; charset=utf-8'}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(("Allow: GET, HEAD",) if status == 405 else ()),
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)
