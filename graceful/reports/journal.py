"""The journal: shutdown reports in Redis, while they are written and until the archive has them.

One hash, ``graceful:journal``: the field is the report's id, the value its JSON (never pickle). Unreadable
entries are moved to a second hash, so that they are kept and not read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from redis import Redis

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.exceptions import UnreadableReport
from graceful.reports import set_aside

JOURNAL_KEY = "graceful:journal"
UNREADABLE_KEY = "graceful:journal:unreadable"
READ_LIMIT = 4 * report_json.ENTRY_LIMIT
"""Bytes of an entry that are read; a longer one is unreadable without being fetched."""
BATCH = 50
"""Entries fetched with one command, so that one reply stays below some 50 MiB."""


class JournalContent(NamedTuple):
    """What the journal held when it was read.

    Args:
        sealed: reports that are complete and wait for the archive.
        open: reports of workers whose shutdown is in progress, or that died during it.
        set_aside: how many unreadable entries this read moved away.
    """

    sealed: tuple[ShutdownReport, ...]
    open: tuple[ShutdownReport, ...]
    set_aside: int


class Journal:
    """The journal on one Redis server. Every method lets ``redis.RedisError`` through.

    Args:
        connection: any connection to that server; its timeouts are the caller's.
    """

    def __init__(self, connection: Redis) -> None:
        self.connection: Any = connection

    def __str__(self) -> str:
        return "the journal in Redis"

    def write(self, report: ShutdownReport) -> None:
        """Write or overwrite a report: one command."""
        text = report_json.dump(report)
        self._retrying(lambda: self.connection.hset(JOURNAL_KEY, report.id, text))

    def remove(self, *report_ids: str) -> None:
        """Remove entries; missing ones are ignored."""
        if report_ids:
            self._retrying(lambda: self.connection.hdel(JOURNAL_KEY, *report_ids))

    def entries(self) -> list[ShutdownReport]:
        """The sealed reports, oldest first. Unreadable entries are set aside."""
        return list(self.read().sealed)

    def read(self) -> JournalContent:
        """Everything in the journal; unreadable entries are set aside, logged and counted."""
        fields: list[Any] = self._retrying(lambda: self.connection.hkeys(JOURNAL_KEY))
        reports: list[ShutdownReport] = []
        unreadable: list[tuple[Any, str]] = []
        for start in range(0, len(fields), BATCH):
            batch, too_long = self._measured(fields[start : start + BATCH])
            unreadable += too_long
            values = self.connection.hmget(JOURNAL_KEY, batch) if batch else []
            for field, value in zip(batch, values, strict=True):
                if value is None:
                    continue  # removed since
                try:
                    reports.append(_report(field, value))
                except UnreadableReport as error:
                    unreadable.append((field, str(error)))
        for field, why in unreadable:
            self.set_aside(field, why)
        reports.sort(key=lambda report: (report.started_at, report.id))
        return JournalContent(
            sealed=tuple(report for report in reports if report.sealed),
            open=tuple(report for report in reports if not report.sealed),
            set_aside=len(unreadable),
        )

    def set_aside(self, report_id: str | bytes, why: str) -> None:
        """Move one entry to the unreadable ones."""
        set_aside.entry(self.connection, JOURNAL_KEY, report_id, why)

    def _retrying(self, command: Callable[[], Any]) -> Any:
        return set_aside.retrying(self.connection, (JOURNAL_KEY,), command)

    def _measured(self, fields: list[Any]) -> tuple[list[Any], list[tuple[Any, str]]]:
        """The fields whose values may be fetched, and those whose values are too long, each with the reason."""
        pipeline = self.connection.pipeline(transaction=False)
        for field in fields:
            pipeline.hstrlen(JOURNAL_KEY, field)
        lengths = dict(zip(fields, pipeline.execute(), strict=True))
        too_long = [
            (field, f"{length} bytes, at most {READ_LIMIT} are read")
            for field, length in lengths.items()
            if length > READ_LIMIT
        ]
        return [field for field, length in lengths.items() if length <= READ_LIMIT], too_long


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _report(field: str | bytes, value: str | bytes) -> ShutdownReport:
    report = report_json.load(value)
    if report.id != _text(field):
        raise UnreadableReport(f"the entry's field is not the report's id {report.id!r}")
    return report
