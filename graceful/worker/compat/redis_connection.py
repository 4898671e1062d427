"""One Redis connection used below the client: a command can be sent without waiting for its reply."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
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


class OwnConnection:
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
        # A health check would take a reply that is still to come for its own.
        self._raw.send_command(*command, check_health=False)
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


class PushConnection(OwnConnection):
    """A connection beside the client's pool, made of the same settings, over which the server may speak unasked.

    It speaks RESP3, whatever the client does: only there commands and pushed messages share one connection. Reading a
    reply passes over pushed messages (``_RESP3Parser``, read in redis 5.0 to 8.1), so look for them before and after.

    Args:
        connection: the client.

    Raises:
        TypeError: its connections take no ``protocol``.
        NoRawConnection: it has no socket to wait for (fakeredis).
    """

    def __init__(self, connection: redis.Redis) -> None:
        pool: Any = connection.connection_pool
        self._raw = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
        self._pending = 0

    def post(self, *command: Any) -> None:
        """Send a command and do not wait for its reply."""
        self._send([command])

    def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands at once and wait for their replies, at most a second for each.

        Raises:
            redis.exceptions.ResponseError: the server refuses one, or refused one that was posted before.
        """
        self._send(commands)
        replies: list[Any] = []
        failure: redis.exceptions.ResponseError | None = None
        while self._pending:
            try:
                reply = self.read()
                if isinstance(reply, list) and reply[:1] in ([b"invalidate"], ["invalidate"]):
                    continue  # hiredis, in redis 5.0, gives a pushed message out as a reply.
                replies.append(reply)
            except redis.exceptions.ResponseError as error:
                failure = error
            self._pending -= 1
        if failure is not None:
            raise failure
        return replies[-len(commands) :]

    def _send(self, commands: Sequence[Sequence[Any]]) -> None:
        if self.socket is None:
            self._pending = 0
            self._raw.connect()
            if not _waitable(self.socket):
                raise NoRawConnection(f"{type(self._raw).__name__} has no socket")
            if hasattr(self._raw._parser, "set_push_handler"):  # redis 5.0 logs each pushed message otherwise.
                self._raw._parser.set_push_handler(lambda message: None)
        self._raw.send_packed_command(self._raw.pack_commands(commands), check_health=False)
        self.socket.settimeout(REPLY_SECONDS)
        self._pending += len(commands)

    def close(self) -> None:
        self._raw.disconnect()
