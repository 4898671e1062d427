"""The archive: shutdown reports in the database, each stored once, whoever brings it and however often.

Reports are stored over a connection of their own in a thread of its own. Of its own, because Django's connections
belong to a thread, exit hooks may have closed the worker's, pool included, and a request's may be in a transaction
that is rolled back; in a thread, because nothing else bounds the time that a hanging database takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Thread
from typing import Any, Protocol

from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connections, router, transaction
from django.db.utils import load_backend
from redis import RedisError

from graceful.core.deadline import Deadline
from graceful.core.post_mortem import knows_more
from graceful.core.records import ShutdownReport, utc_now
from graceful.exceptions import UnreadableReport
from graceful.models import ReportedHook, ReportedJob
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.rows import ReportRows, record_of, rows_of, stored_time

RETRY_SECONDS = 0.02
"""Between two attempts while another process holds SQLite's write lock."""

logger = logging.getLogger("graceful.reports")


class Holder(Protocol):
    """Where reports wait for the archive: :class:`Journal` or :class:`Spool`."""

    def entries(self) -> list[ShutdownReport]: ...

    def remove(self, *report_ids: str) -> None: ...

    def set_aside(self, report_id: str, why: str) -> None: ...


def store(report: ShutdownReport, *, seconds: float) -> bool:
    """Store a report; one that is stored already stays, unless this one knows what became of a job and that one not.

    Never raises. A database that hangs is left behind after ``seconds``, with the thread that waits for it.

    Args:
        report: sealed or not; what is stored is what it says now.
        seconds: the longest that the caller can wait.

    Returns:
        True when the report is in the database, whoever put it there.
    """
    errand = _Errand([report], Deadline.after(seconds))
    errand.run_for(seconds)
    return report.id in errand.stored


def archive_pending(holder: Holder, seconds: float) -> int:
    """Store the reports that wait in a journal or a spool, and remove them there.

    Never raises. What is not done within ``seconds`` is left for the next time, except that a server behind
    ``holder`` that does not answer holds the caller for as long as its connection's own timeouts say.

    Returns:
        How many reports were brought home.
    """
    try:
        return archive_pending_or_raise(holder, seconds)
    except (RedisError, OSError) as error:
        logger.warning("Shutdown reports in %s could not be brought home: %s", holder, error)
        return 0


def archive_pending_or_raise(holder: Holder, seconds: float) -> int:
    """As :func:`archive_pending`.

    Raises:
        redis.RedisError, OSError: what ``holder`` raises when it cannot be reached.
    """
    deadline = Deadline.after(seconds)
    reports = holder.entries()
    if not reports:
        return 0
    errand = _Errand(reports, deadline)
    errand.run_for(deadline.left())
    # Left behind, the errand may still go on: what counts is what it had done by now.
    stored, refused = list(errand.stored), dict(errand.refused)
    holder.remove(*stored)
    for report_id, why in refused.items():
        holder.set_aside(report_id, why)
    return len(stored)


def read(report_id: str) -> ShutdownReport | None:
    """A stored report, or None when there is none.

    Raises:
        django.db.DatabaseError: the database does not answer.
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
        logger.warning("Old shutdown reports could not be removed: %s", error)
    return removed


def _delete(ids: Sequence[str], alias: str) -> int:
    """Delete reports with their rows; returns how many there were."""
    ReportedHook.objects.using(alias).filter(report__in=ids).delete()
    ReportedJob.objects.using(alias).filter(report__in=ids).delete()
    return ArchivedReport.objects.using(alias).filter(pk__in=ids).delete()[1].get(ArchivedReport._meta.label, 0)


class _Errand(Thread):
    """Stores some reports over a connection that is closed again; ends when it is done, fails, or is late."""

    def __init__(self, reports: Sequence[ShutdownReport], deadline: Deadline) -> None:
        super().__init__(name="graceful-archive", daemon=True)
        self.reports = reports
        self.deadline = deadline
        self.stored: list[str] = []
        self.refused: dict[str, str] = {}

    def run_for(self, seconds: float) -> None:
        try:
            self.start()
        except RuntimeError as error:  # no thread to be had
            logger.warning("Shutdown reports could not be stored: %s", error)
            return
        self.join(max(0.0, seconds))
        if self.is_alive():
            logger.warning("The database took longer than %.2f s to store shutdown reports", seconds)

    def run(self) -> None:
        try:
            alias = router.db_for_write(ArchivedReport)
            connections[alias] = connection = _fresh_connection(alias, self.deadline)
            try:
                for report in self.reports:
                    if self.deadline.expired:
                        break
                    self._store(report, alias)
            finally:
                connection.close()
        except Exception as error:
            # Whatever it is, a driver's own error included, it must not end in a traceback of a nameless thread.
            logger.warning("Shutdown reports could not be stored: %s: %s", type(error).__name__, error)

    def _store(self, report: ShutdownReport, alias: str) -> None:
        """Store one report, or note that the database does not take it; lets errors of the connection through."""
        try:
            rows = rows_of(report)
            while not _insert(rows, alias, self.deadline):
                time.sleep(RETRY_SECONDS)
            self.stored.append(report.id)
        except (InterfaceError, OperationalError):
            raise
        except (DatabaseError, UnreadableReport, ValueError, OverflowError) as error:
            logger.warning("Shutdown report %s cannot be stored: %s", report.id, error)
            self.refused[report.id] = f"the archive refused it: {error}"


def _insert(rows: ReportRows, alias: str, deadline: Deadline) -> bool:
    """Insert a report with its rows unless it is there already; False: the database is locked, try again."""
    try:
        try:
            _write(rows, alias)
        except IntegrityError:
            there = ArchivedReport.objects.using(alias).filter(pk=rows.report.pk).first()
            if there is None:
                raise
            if knows_more(rows.record, record_of(there)):
                with suppress(IntegrityError):  # Somebody else was quicker.
                    _write(rows, alias, instead=True)
    except OperationalError as error:
        if "locked" in str(error) and not deadline.expired:
            return False
        raise
    return True


def _write(rows: ReportRows, alias: str, *, instead: bool = False) -> None:
    # A write comes first: in SQLite a transaction that has read cannot always go on to write.
    with transaction.atomic(using=alias):
        if instead:
            _delete([rows.report.pk], alias)
        rows.report.save(using=alias, force_insert=True)
        ReportedHook.objects.using(alias).bulk_create(rows.hooks)
        ReportedJob.objects.using(alias).bulk_create(rows.jobs)


def _fresh_connection(alias: str, deadline: Deadline) -> Any:
    """A connection of this thread alone, without the pool that hooks may have closed."""
    settings: dict[str, Any] = {**connections.settings[alias], "AUTOCOMMIT": True, "CONN_MAX_AGE": 0}
    settings["OPTIONS"] = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    if settings["ENGINE"] == "django.db.backends.sqlite3":
        settings["OPTIONS"]["timeout"] = deadline.left()
    return load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
