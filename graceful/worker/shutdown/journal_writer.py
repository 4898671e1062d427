"""Writes a worker's entry in the journal without waiting for Redis, except at the very end.

What was sent lies with the kernel, and reaches Redis even if the process is killed at the next instant. So every step
of a shutdown can be written down at the cost of a system call, and only the sealed report costs a round trip.
"""

from __future__ import annotations

import threading

import redis
from redis.exceptions import RedisError

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import JOURNAL_KEY
from graceful.worker.compat.redis_connection import NoRawConnection, OwnConnection

MOST_PENDING = 100


class JournalWriter:
    """One worker's way to the journal, over a connection of its own from its start on.

    To connect only when the shutdown begins would hold up whoever announces it where Redis does not answer.

    Args:
        connection: the worker's client.
    """

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection
        self._raw: OwnConnection | None = None
        self._pending = 0
        self._lock = threading.Lock()

    def post(self, report: ShutdownReport) -> None:
        """Send the entry and do not wait.

        Raises:
            redis.exceptions.RedisError: it could not be sent.
        """
        with self._lock:
            self._send(report)
            if self._pending >= MOST_PENDING:
                self._settle()

    def write(self, report: ShutdownReport) -> None:
        """Write the entry, and wait until Redis has it.

        Raises:
            redis.exceptions.RedisError: Redis did not answer, or refused.
        """
        with self._lock:
            try:
                self._send(report)
                self._settle()
            except RedisError:
                # The connection may have been cut since the last entry: once more over a new one.
                self._drop()
                self._send(report)
                self._settle()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _send(self, report: ShutdownReport) -> None:
        try:
            if self._raw is None:
                try:
                    self._raw = OwnConnection(self._connection)
                except NoRawConnection:
                    self._connection.hset(JOURNAL_KEY, report.id, report_json.dump(report))
                    return
            if self._raw.socket is None:
                self._pending = 0  # A hook has cut it; the replies to what went before will not come any more.
            self._raw.send("HSET", JOURNAL_KEY, report.id, report_json.dump(report))
            self._pending += 1
        except (RedisError, OSError) as error:
            self._drop()
            raise error if isinstance(error, RedisError) else redis.exceptions.ConnectionError(str(error)) from error

    def _settle(self) -> None:
        """Read the replies to all that was sent; the last one says whether the entry is there."""
        if self._raw is None:
            return  # There is no raw connection, and the entry is written.
        failure: redis.exceptions.ResponseError | None = None
        try:
            while self._pending:
                self._pending -= 1
                try:
                    self._raw.read()
                    failure = None
                except redis.exceptions.ResponseError as error:
                    failure = error
        except (RedisError, OSError):
            self._drop()
            raise
        if failure is not None:
            raise failure

    def _drop(self) -> None:
        raw, self._raw, self._pending = self._raw, None, 0
        if raw is not None:
            try:
                raw.close()
            except (RedisError, OSError):
                pass  # It is gone, which is what was wanted.
