"""Writes a worker's entry in the journal without waiting for Redis, except at the very end.

What was sent lies with the kernel, and reaches Redis even if the process is killed at the next instant. So every step
of a shutdown can be written down at the cost of a system call, and only the sealed report costs a round trip.
"""

from __future__ import annotations

import redis
from redis.exceptions import RedisError

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.reports.journal import JOURNAL_KEY
from graceful.worker.compat.redis_connection import NoRawConnection, OwnConnection


class JournalWriter:
    """One worker's way to the journal, over the connection on which it waits for jobs.

    To connect only when the shutdown begins would hold up whoever announces it where Redis does not answer.

    Args:
        own: that connection.
        connection: the worker's client, for one that has no socket.
    """

    def __init__(self, own: OwnConnection, connection: redis.Redis) -> None:
        self._own = own
        self._connection = connection

    def post(self, report: ShutdownReport) -> None:
        """Send the entry and do not wait.

        Raises:
            redis.exceptions.RedisError: it could not be sent.
        """
        command = _command(report)
        try:
            self._own.post(*command)
        except NoRawConnection:
            self._connection.execute_command(*command)

    def write(self, report: ShutdownReport) -> None:
        """Write the entry, and wait until Redis has it.

        Raises:
            redis.exceptions.RedisError: Redis did not answer, or refused.
        """
        command = _command(report)
        try:
            self._own.ask(command)
        except NoRawConnection:
            self._connection.execute_command(*command)
        except RedisError:
            # The connection may have been cut since the last entry: once more over a new one.
            self._own.disconnect()
            self._own.ask(command)

    def close(self) -> None:
        self._own.disconnect()


def _command(report: ShutdownReport) -> tuple[str, ...]:
    return "HSET", JOURNAL_KEY, report.id, report_json.dump(report)
