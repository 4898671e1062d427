"""The last report of a dead worker: from the journal, the archive or the spool."""

from __future__ import annotations

from typing import Any

import redis
from django.db import connections

from graceful.conf import Settings
from graceful.core import report_json
from graceful.core.post_mortem import knows_more
from graceful.core.records import ShutdownReport, utc_now
from graceful.exceptions import UnreadableReport
from graceful.reports import archive
from graceful.reports.journal import JOURNAL_KEY, Journal
from graceful.reports.spool import Spool
from graceful.threads import bounded
from graceful.worker.cluster.registration import Registration

ARCHIVE_SECONDS = 2.0


def last_report(connection: redis.Redis, settings: Settings, registration: Registration) -> ShutdownReport | None:
    """The latest report of a worker; if Redis was unreachable at its end, that is in the archive or in the spool.

    Args:
        connection: a client of the server with the journal.
        settings: the settings in effect.
        registration: the worker, which is dead.

    Returns:
        None if there is none that can be read.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    spool = Spool(settings.spool_dir)
    archive.archive_pending(spool, ARCHIVE_SECONDS)
    stored = bounded(lambda: _stored(registration.worker_id), ARCHIVE_SECONDS).value
    written = _written(connection, registration.worker_id)
    if stored is None and (written is None or not written.sealed):
        # The database may be unreachable too: what the spool has is newer than the journal's open entry.
        stored = next((each for each in _spooled(spool) if each.id == registration.worker_id), None)
    if stored is None or (written is not None and knows_more(written, stored)):
        return written
    return stored


def blank_report(registration: Registration) -> ShutdownReport:
    """A report of a worker of which there is none."""
    return ShutdownReport(
        id=registration.worker_id,
        worker=registration.worker,
        hostname="",
        pid=registration.process.pid,
        queues=registration.queues,
        worker_class="",
        started_at=utc_now(),
    )


def _written(connection: redis.Redis, worker_id: str) -> ShutdownReport | None:
    """Its journal entry."""
    text: Any = connection.hget(JOURNAL_KEY, worker_id)
    if text is None:
        return None
    try:
        return report_json.load(text)
    except UnreadableReport as error:
        Journal(connection).set_aside(worker_id, str(error))
        return None


def _spooled(spool: Spool) -> list[ShutdownReport]:
    try:
        return spool.entries()
    except OSError:
        return []  # archive_pending() has logged why.


def _stored(worker_id: str) -> ShutdownReport | None:
    """Runs in its own thread, so the connections that it closes are its own."""
    try:
        return archive.read(worker_id)
    finally:
        connections.close_all()
