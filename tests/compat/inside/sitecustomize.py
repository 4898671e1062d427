"""Imported by every interpreter of such a run, a spawned horse's too: RQ's tests connect to redis-py's default port."""

import os

import redis.connection

DEFAULT_PORT = 6379
_connect = redis.connection.Connection._connect


def _connect_to_ours(connection):  # type: ignore[no-untyped-def]
    asked_for = connection.port
    # Looked up late: each process of pytest-xdist has a server of its own.
    if asked_for == DEFAULT_PORT and "COMPAT_PORT" in os.environ:
        connection.port = int(os.environ["COMPAT_PORT"])
    try:
        return _connect(connection)
    finally:
        connection.port = asked_for


redis.connection.Connection._connect = _connect_to_ours  # type: ignore[method-assign]
