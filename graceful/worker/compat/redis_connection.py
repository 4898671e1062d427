"""A Redis connection used below the client: a command can be sent without waiting for its reply."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

REPLY_SECONDS = 1.0
DRIVER_OPTIONS = {"driver_info", "lib_name", "lib_version"}
MOST_PENDING = 100
"""Replies that are left unread at most, before they are waited for."""


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


def main_thread_waits() -> bool:
    """Whether the main thread is in a call of a Redis connection."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not isinstance(frame.f_locals.get("self"), AbstractConnection):
        frame = frame.f_back
    return frame is not None


def know_driver(pool: Any) -> None:
    """Have redis-py look its own version up once, and not for each connection: in a newborn horse that takes 1 ms.

    ``redis.Redis`` does so itself, but not where it is given a URL. ``driver_info`` came with redis-py 7.2.
    """
    made: Any = getattr(redis, "DriverInfo", None)
    kwargs = pool.connection_kwargs
    if made and pool.connection_class.__module__.startswith("redis.") and not DRIVER_OPTIONS & kwargs.keys():
        kwargs["driver_info"] = made()


def drop_idle(pool: Any) -> None:
    """Disconnect the connections of a pool that nobody uses now."""
    try:
        pool.disconnect(inuse_connections=False)
    except TypeError:
        # The BlockingConnectionPool of redis-py 5.0 would disconnect those in use too; its attribute was read in 5.0.
        for connection in list(pool.pool.queue):
            if connection is not None:
                connection.disconnect()


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


def bound(pool: Any, seconds: float) -> None:
    """From now on no command over this pool takes longer than so many seconds.

    An idle connection is kept, since a new one would cost the shutdown three round trips: its parser is started again,
    which takes the socket's timeout over. A BlockingConnectionPool starts anew. Read in redis 5.0 to 8.1.
    """
    retry = Retry(NoBackoff(), 1)
    pool.connection_kwargs.update(socket_timeout=seconds, socket_connect_timeout=seconds, retry=retry)
    idle: list[Any] = []
    try:
        while True:  # Taken out one by one: another thread may be about to use the next.
            idle.append(pool._available_connections.pop())
    except (AttributeError, IndexError):
        pass
    drop_idle(pool)
    pool.reset()
    for connection in idle:
        connection.socket_timeout = connection.socket_connect_timeout = seconds
        connection.retry = retry
        try:
            if connection._sock is not None:
                connection._sock.settimeout(seconds)
                connection._parser.on_connect(connection)
        except OSError:  # A job may have closed every descriptor there is.
            connection.disconnect()
        pool._available_connections.append(connection)


class NoRawConnection(redis.exceptions.RedisError):
    """The client has no socket, for instance one of ``fakeredis`` in a project's tests."""


class OwnConnection:
    """A connection beside a client's pool, with the same settings, on which a command can be sent without waiting.

    It speaks RESP3 where the server does, whatever the client speaks: only there may the server push messages between
    the replies. Reading a reply skips them (``_RESP3Parser``, read in redis 5.0 to 8.1). Any thread may use it;
    one that waits for Redis holds the others up for a second at most: connecting may take minutes, a signal's entry may
    not.

    Args:
        connection: the client.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._pool: Any = connection.connection_pool
        self._raw: Any = None
        self._pending = 0
        self._lock = threading.RLock()
        self.pushes = False
        """Whether the server may push messages; known once it is connected."""

    @property
    def socket(self) -> Any:
        """The socket to wait for, or None while not connected.

        redis-py has no public way to it; read in redis 5.0 to 8.1 (``AbstractConnection._sock``).
        """
        return None if self._raw is None else self._raw._sock

    def readable(self) -> bool:
        """Whether there is something to read, or no connection any more; TLS protocol data alone does not count."""
        with self._alone():
            return self.socket is None or bool(self._raw.can_read(timeout=0))

    def post(self, *command: Any) -> None:
        """Send a command without waiting for its reply; connects first if necessary.

        Raises:
            redis.exceptions.RedisError: it could not be sent.
            NoRawConnection: there is no socket.
        """
        with self._alone():
            self._send([command])
            if self._pending >= MOST_PENDING:
                self._replies()

    def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands together and wait for their replies, at most a second for each.

        Raises:
            redis.exceptions.ResponseError: the server refused one of them, or one that was posted before.
            redis.exceptions.RedisError: there was no reply.
            NoRawConnection: there is no socket.
        """
        with self._alone():
            self._send(commands)
            return self._replies()[-len(commands) :]

    def disconnect(self) -> None:
        """Disconnect; what is sent next reconnects. Where another thread waits for Redis, it is left to that one."""
        with suppress(redis.exceptions.RedisError, OSError), self._alone():
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.disconnect()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=REPLY_SECONDS):
            raise redis.exceptions.TimeoutError("another thread waits for an answer")
        try:
            yield
        finally:
            self._lock.release()

    def _send(self, commands: Sequence[Sequence[Any]]) -> None:
        try:
            if self.socket is None:
                self._pending = 0
                self._raw = self._connected()
            # A health check would read a pending reply as its own.
            self._raw.send_packed_command(self._raw.pack_commands(commands), check_health=False)
            self.socket.settimeout(REPLY_SECONDS)
        except (OSError, AttributeError) as error:  # A hook may have closed every descriptor there is.
            raise redis.exceptions.ConnectionError(str(error)) from error
        self._pending += len(commands)

    def _replies(self) -> list[Any]:
        replies: list[Any] = []
        failure: redis.exceptions.ResponseError | None = None
        while self._pending:
            try:
                reply = self._raw.read_response()
                if isinstance(reply, list) and reply[:1] in ([b"invalidate"], ["invalidate"]):
                    continue  # hiredis, in redis 5.0, returns a pushed message as a reply.
                replies.append(reply)
            except redis.exceptions.ResponseError as error:
                failure = error
            self._pending -= 1
        if failure is not None:
            raise failure
        return replies

    def _connected(self) -> Any:
        options = self._pool.connection_kwargs
        self.pushes = True
        try:
            raw = self._pool.connection_class(**{**options, "protocol": 3})
            raw.connect()
        except (TypeError, redis.exceptions.ResponseError):
            # A connection class of a project's own that takes no protocol, or a proxy that does not know RESP3.
            self.pushes = False
            raw = self._pool.connection_class(**options)
            raw.connect()
        if not _waitable(raw._sock):
            raise NoRawConnection(f"{type(raw).__name__} has no socket")
        if hasattr(raw._parser, "set_push_handler"):  # redis 5.0 logs each pushed message otherwise.
            raw._parser.set_push_handler(lambda message: None)
        return raw


def _waitable(sock: Any) -> bool:
    """Whether ``poll`` can wait for this socket."""
    try:
        return int(sock.fileno()) >= 0 and hasattr(sock, "settimeout")
    except Exception:
        return False
