"""A Redis connection used below the client: a command can be sent without waiting for its reply."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

REPLY_SECONDS = 1.0


def socket_of_main_thread() -> Any:
    """The socket of the Redis connection that the main thread is blocked in, or None.

    Retries of that call are switched off: each would wait for the connection's own timeout.
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


def drop_idle(pool: Any) -> None:
    """Disconnect the connections of a pool that nobody uses now."""
    try:
        pool.disconnect(inuse_connections=False)
    except TypeError:
        # The BlockingConnectionPool of redis-py 5.0 would disconnect those in use too; its attribute was read in 5.0.
        for connection in list(pool.pool.queue):
            if connection is not None:
                connection.disconnect()


class NoRawConnection(redis.exceptions.RedisError):
    """The client has no socket, for instance one of ``fakeredis`` in a project's tests."""


class OwnConnection:
    """A separate connection from a client's pool, with the same settings: TLS, unix socket, Sentinel.

    Args:
        connection: the client.

    Raises:
        redis.exceptions.MaxConnectionsError: the pool is exhausted.
        redis.exceptions.ConnectionError: Redis is unreachable.
        NoRawConnection: it has no socket; only the client's own methods can be used.
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
        """Send a command; connects first if necessary. Later reads wait at most a second."""
        # A health check would read a pending reply as its own.
        self._raw.send_command(*command, check_health=False)
        self.socket.settimeout(REPLY_SECONDS)

    def readable(self) -> bool:
        """Whether there is a reply to read; TLS protocol data alone does not count."""
        return bool(self._raw.can_read(timeout=0))

    def read(self) -> Any:
        """Read one reply."""
        return self._raw.read_response()

    def disconnect(self) -> None:
        """Disconnect; the next :meth:`send` reconnects."""
        self._raw.disconnect()

    def close(self) -> None:
        """Disconnect, and return the connection to its pool."""
        self._raw.disconnect()
        self._client.close()


def _waitable(sock: Any) -> bool:
    """Whether ``poll`` can wait for this socket."""
    try:
        return int(sock.fileno()) >= 0 and hasattr(sock, "settimeout")
    except Exception:
        return False


def client_of_its_own(connection: redis.Redis, seconds: float) -> redis.Redis | None:
    """A client of the same server that takes no connection out of another's pool, and waits at most so long.

    Returns:
        None where the class of its connections cannot be used so.
    """
    pool: Any = connection.connection_pool
    options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
    try:
        own = redis.ConnectionPool(
            connection_class=pool.connection_class, **{**pool.connection_kwargs, "retry_on_error": [], **options}
        )
    except TypeError:
        return None
    return redis.Redis(connection_pool=own)


class PushConnection(OwnConnection):
    """A connection outside the client's pool, with the same settings, on which the server may push messages.

    It uses RESP3, whatever the client does: only there do commands and pushed messages share one connection. Reading a
    reply skips pushed messages (``_RESP3Parser``, read in redis 5.0 to 8.1), so check for them before and after.

    Args:
        connection: the client.

    Raises:
        TypeError: its connections take no ``protocol``.
        NoRawConnection: it has no socket (fakeredis).
    """

    def __init__(self, connection: redis.Redis) -> None:
        pool: Any = connection.connection_pool
        self._raw = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
        self._pending = 0

    def post(self, *command: Any) -> None:
        """Send a command without waiting for its reply."""
        self._send([command])

    def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together and wait for their replies, at most a second for each.

        Raises:
            redis.exceptions.ResponseError: the server refused one of them, or one that was posted before.
        """
        self._send(commands)
        replies: list[Any] = []
        failure: redis.exceptions.ResponseError | None = None
        while self._pending:
            try:
                reply = self.read()
                if isinstance(reply, list) and reply[:1] in ([b"invalidate"], ["invalidate"]):
                    continue  # hiredis, in redis 5.0, returns a pushed message as a reply.
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
