"""One Redis connection used below the client: a command can be sent without waiting for its reply."""

from __future__ import annotations

import sys
import threading
from typing import Any

import redis
from redis.connection import AbstractConnection
from redis.retry import Retry

REPLY_SECONDS = 1.0


def socket_of_main_thread() -> Any:
    """The socket of the Redis connection that the main thread is in a call of, or None.

    That call is not tried again any more: it would wait with the patience that its connection was made with.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    found = None
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, AbstractConnection) and found is None:
            found = owner._sock
        if isinstance(owner, Retry):
            # update_retries() is not in redis-py 5.0; the attribute was read in 5.0 to 8.1.
            owner._retries = 0
        frame = frame.f_back
    return found


class NoRawConnection(redis.exceptions.RedisError):
    """The client has no socket below it, as one of ``fakeredis`` that a project's tests use."""


class RawConnection:
    """A connection of its own out of a client's pool, so made of the same settings: TLS, unix socket, Sentinel.

    Args:
        connection: the client.

    Raises:
        redis.exceptions.MaxConnectionsError: the pool has no connection to spare.
        redis.exceptions.ConnectionError: Redis cannot be reached.
        NoRawConnection: it has no socket to wait for; only the client's own methods can be used.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._client = redis.Redis(connection_pool=connection.connection_pool, single_connection_client=True)
        self._raw: Any = self._client.connection
        if not _waitable(getattr(self._raw, "_sock", None)):
            self._client.close()
            raise NoRawConnection(f"{type(self._raw).__name__} has no socket")

    @property
    def socket(self) -> Any:
        """The socket to wait for, or None while not connected.

        redis-py has no public way to it; read in redis 5.0 to 8.1 (``AbstractConnection._sock``).
        """
        return self._raw._sock

    def send(self, *command: Any) -> None:
        """Send a command; connects first where that is necessary. Later reads wait at most a second."""
        self._raw.send_command(*command)
        self.socket.settimeout(REPLY_SECONDS)

    def readable(self) -> bool:
        """Whether there is something to read; data of TLS alone is not."""
        return bool(self._raw.can_read(timeout=0))

    def read(self) -> Any:
        """Read one reply."""
        return self._raw.read_response()

    def disconnect(self) -> None:
        """Cut it; the next :meth:`send` connects anew."""
        self._raw.disconnect()

    def close(self) -> None:
        """Cut it and give it back to its pool."""
        self._raw.disconnect()
        self._client.close()


def _waitable(sock: Any) -> bool:
    """Whether ``poll`` can wait for it."""
    try:
        return int(sock.fileno()) >= 0 and hasattr(sock, "settimeout")
    except Exception:
        return False
