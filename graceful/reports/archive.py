"""The archive: shutdown reports in the database, each stored once, however many processes try.

Reports are stored over a connection of their own in a thread of its own. Of its own, because Django's connections
belong to a thread, exit hooks may have closed the worker's, pool included, and a request's may be in a transaction
that is rolled back; in a thread, because nothing else bounds the time that a hung database takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread
from typing import Any, Protocol

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)
from django.db.utils import load_backend
from redis import RedisError

from graceful.core.deadline import Deadline
from graceful.core.post_mortem import knows_more
from graceful.core.records import ShutdownReport, utc_now
from graceful.exceptions import UnreadableReport
from graceful.models import ReportedHook, ReportedJob, ReportKeyword
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import log
from graceful.reports.noted_releases import note_release_of
from graceful.reports.rows import ReportRows, record_of, rows_of, stored_time

RETRY_SECONDS = 0.02
"""Between two attempts while another process holds SQLite's write lock."""

logger = logging.getLogger("graceful.reports")


class ReportSource(Protocol):
    """Where reports wait to be archived: :class:`Journal` or :class:`Spool`."""

    def entries(self) -> list[ShutdownReport]: ...

    def remove(self, *report_ids: str) -> None: ...

    def set_aside(self, report_id: str, why: str) -> None: ...


def store(report: ShutdownReport, *, seconds: float) -> bool:
    """Store a report. A stored one is replaced only by one that knows the outcome of more of the same jobs.

    Never raises. A database that hangs is abandoned after ``seconds``, with the thread that waits for it.

    Args:
        report: sealed or not; it is stored as it is now.
        seconds: the longest that the caller can wait.

    Returns:
        True if the report is in the database, whichever process stored it.
    """
    thread = _StoreThread([report], Deadline.after(seconds))
    thread.run_for(seconds)
    return report.id in thread.stored


def archive_pending(source: ReportSource, seconds: float) -> int:
    """Store the reports that wait in a journal or a spool, and remove them there.

    Never raises. What is not done within ``seconds`` is left for the next run. An unreachable server behind
    ``source`` blocks the caller for as long as its connection's own timeouts allow.

    Returns:
        How many reports were archived.
    """
    try:
        return archive_pending_or_raise(source, seconds)
    except (RedisError, OSError) as error:
        logger.warning(log.NOT_ARCHIVED, source, error)
        return 0


def archive_pending_or_raise(source: ReportSource, seconds: float) -> int:
    """As :func:`archive_pending`.

    Raises:
        redis.RedisError, OSError: ``source`` is unreachable.
    """
    deadline = Deadline.after(seconds)
    reports = source.entries()
    if not reports:
        return 0
    thread = _StoreThread(reports, deadline)
    thread.run_for(deadline.left())
    # An abandoned thread may still run: what counts is what it has stored by now.
    stored, refused = list(thread.stored), dict(thread.refused)
    source.remove(*stored)
    for report_id, why in refused.items():
        source.set_aside(report_id, why)
    return len(stored)


def read(report_id: str) -> ShutdownReport | None:
    """A stored report, or None if there is none.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    found = ArchivedReport.objects.filter(pk=report_id).first()
    return record_of(found) if found else None


def remove_old(keep: timedelta, batch: int = 500) -> int:
    """Remove reports older than ``keep``, in transactions of ``batch`` reports, so that no lock is held for long.

    Never raises; runs over the caller's own database connection.

    Returns:
        How many reports were removed.
    """
    removed = 0
    try:
        alias = router.db_for_write(ArchivedReport)
        old = ArchivedReport.objects.using(alias).filter(happened_at__lt=stored_time(utc_now() - keep))
        while ids := list(old.order_by("happened_at", "id").values_list("pk", flat=True)[:batch]):
            with transaction.atomic(using=alias):
                removed += _delete(ids, alias)
    except (DatabaseError, OverflowError) as error:
        logger.warning(log.TABLES_MISSING if needs_migrate(error) else log.OLD_NOT_REMOVED, _shown(error))
    return removed


def needs_migrate(error: Exception) -> bool:
    """Whether a table or a column is missing, as before the first ``manage.py migrate`` or after an upgrade without it.

    PostgreSQL says so with the class of the error, MySQL with two, SQLite only in words.
    """
    words = ("no such table", "no such column", "has no column named", "Unknown column")
    denied = "42501" in (getattr(error.__cause__, "sqlstate", None), getattr(error.__cause__, "pgcode", None))
    return (isinstance(error, ProgrammingError) and not denied) or (
        isinstance(error, OperationalError) and any(each in str(error) for each in words)
    )


def _shown(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _delete(ids: Sequence[str], alias: str) -> int:
    """Delete reports with their rows; returns how many there were."""
    ReportedHook.objects.using(alias).filter(report__in=ids).delete()
    ReportedJob.objects.using(alias).filter(report__in=ids).delete()
    ReportKeyword.objects.using(alias).filter(report__in=ids).delete()
    return ArchivedReport.objects.using(alias).filter(pk__in=ids).delete()[1].get(ArchivedReport._meta.label, 0)


class _StoreThread(Thread):
    """Stores reports over a connection of its own; ends when it is done, fails, or runs out of time."""

    def __init__(self, reports: Sequence[ShutdownReport], deadline: Deadline) -> None:
        super().__init__(name="graceful-archive", daemon=True)
        self.reports = reports
        self.deadline = deadline
        self.stored: list[str] = []
        self.refused: dict[str, str] = {}

    def run_for(self, seconds: float) -> None:
        try:
            self.start()
        except RuntimeError as error:  # no thread can be started
            logger.warning(log.NOT_STORED, error)
            return
        self.join(max(0.0, seconds))
        if self.is_alive():
            logger.warning(log.DATABASE_SLOW, seconds)

    def run(self) -> None:
        try:
            alias = router.db_for_write(ArchivedReport)
            with fresh_connection(alias, self.deadline):
                for report in self.reports:
                    if self.deadline.expired:
                        break
                    self._store(report, alias)
        except Exception as error:
            # Any error, a driver's own included, becomes a log line and not a background thread's traceback.
            logger.warning(log.TABLES_MISSING if needs_migrate(error) else log.NOT_STORED, _shown(error))

    def _store(self, report: ShutdownReport, alias: str) -> None:
        """Store one report, or record that the database refuses it; connection errors pass through."""
        try:
            rows = rows_of(report)
            while not _insert(rows, alias, self.deadline):
                time.sleep(RETRY_SECONDS)
            self.stored.append(report.id)
            note_release_of(report, alias)
        except (InterfaceError, OperationalError, ProgrammingError):
            raise  # None of these is the report's fault: it waits.
        except (DatabaseError, UnreadableReport, ValueError, OverflowError) as error:
            logger.warning(log.REFUSED, report.id, error)
            self.refused[report.id] = f"the archive refused it: {error}"


def _insert(rows: ReportRows, alias: str, deadline: Deadline) -> bool:
    """Insert a report with its rows unless it is there already; False if the database is locked: retry."""
    try:
        try:
            _write(rows, alias)
        except IntegrityError:
            there = ArchivedReport.objects.using(alias).filter(pk=rows.report.pk).first()
            if there is None:
                raise
            if knows_more(rows.record, record_of(there)):
                with suppress(IntegrityError):  # Another process was faster.
                    _write(rows, alias, instead=True)
    except OperationalError as error:
        if "locked" in str(error) and not deadline.expired:
            return False
        raise
    return True


def _write(rows: ReportRows, alias: str, *, instead: bool = False) -> None:
    # The write comes first: in SQLite a transaction that has read cannot always be upgraded to a write.
    with transaction.atomic(using=alias):
        if instead:
            ReportedHook.objects.using(alias).filter(report=rows.report.pk).delete()
            # Read under the row's lock: counted in the roll-ups is counted, whoever does that at this moment.
            there = ArchivedReport.objects.using(alias).select_for_update().filter(pk=rows.report.pk)
            counted = there.values_list("rolled_up", flat=True).first()
            if counted is None:
                return  # Another process is replacing it.
            rows.report.rolled_up = counted
            _delete([rows.report.pk], alias)
        rows.report.save(using=alias, force_insert=True)
        ReportedHook.objects.using(alias).bulk_create(rows.hooks)
        ReportedJob.objects.using(alias).bulk_create(rows.jobs)
        # A collation that ignores case takes two names for one, as the search by it does.
        ReportKeyword.objects.using(alias).bulk_create(rows.keywords, ignore_conflicts=True)


@contextmanager
def fresh_connection(alias: str, deadline: Deadline) -> Iterator[None]:
    """This thread alone gets a new connection, without the pool that hooks may have closed; closed at the end."""
    settings: dict[str, Any] = {**connections.settings[alias], "AUTOCOMMIT": True, "CONN_MAX_AGE": 0}
    settings["OPTIONS"] = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    if settings["ENGINE"] == "django.db.backends.sqlite3":
        settings["OPTIONS"]["timeout"] = deadline.left()
    connections[alias] = connection = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
    try:
        yield
    finally:
        connection.close()
