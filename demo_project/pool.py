"""Connections of our own, beside Django's: what a project has that talks to its database from a thread."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

_pool: Any = None


class SQLitePool:
    """A few connections to one file, handed out one by one; ``psycopg_pool.ConnectionPool`` in small.

    Args:
        path: the database file.
        size: how many connections.
    """

    def __init__(self, path: str, size: int = 2) -> None:
        self.size = size
        self._free: queue.Queue[sqlite3.Connection] = queue.Queue()
        for _ in range(size):
            self._free.put(sqlite3.connect(path, timeout=20, check_same_thread=False))

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        connection = self._free.get()
        try:
            with connection:
                yield connection
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Close every connection; waits for those that are in use."""
        for _ in range(self.size):
            self._free.get().close()


def open_pool() -> None:
    """Open the pool to the database that Django uses."""
    global _pool
    if settings.DATABASE_URL.startswith("sqlite"):
        _pool = SQLitePool(str(settings.DATABASES["default"]["NAME"]))
    else:
        from psycopg_pool import ConnectionPool

        _pool = ConnectionPool(settings.DATABASE_URL, min_size=2, max_size=2, open=True)


def execute(sql: str, values: tuple[object, ...]) -> None:
    """Run one statement in a transaction; its placeholders are ``%s``."""
    with _pool.connection() as connection:
        connection.execute(sql.replace("%s", "?") if isinstance(_pool, SQLitePool) else sql, values)


def close_pool() -> str | None:
    """The exit hook: give the connections back to the database, rather than have it find out."""
    global _pool
    pool, _pool = _pool, None
    if pool is None:
        return None
    pool.close()
    return "closed 2 connections"
