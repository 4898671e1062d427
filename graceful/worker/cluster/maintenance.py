"""A worker's periodic maintenance: archives reports that wait, adds them up, removes old ones and stale entries."""

from __future__ import annotations

import logging
from contextlib import suppress
from uuid import uuid4

import redis
from django.db import connections
from redis.exceptions import RedisError

from graceful.conf import Settings
from graceful.reports import archive, resumed, slots
from graceful.reports.journal import Journal
from graceful.reports.rollup import fold_old, roll_up
from graceful.reports.spool import Spool
from graceful.threads import Bounded
from graceful.worker.cluster import log
from graceful.worker.cluster.heartbeat import remove_stale_holders

logger = logging.getLogger("graceful.worker")

ARCHIVE_SECONDS = 2.0
ROLL_UP_SECONDS = 0.3
"""Some thousand reports: the worker takes no job meanwhile. A backlog is worked off run by run."""
TABLES_SECONDS = 5.0
"""For adding up, included in it, and removing old reports."""
MOST_SECONDS = 3 * ARCHIVE_SECONDS + TABLES_SECONDS


def run_maintenance(connection: redis.Redis, settings: Settings) -> None:
    """Archive what waits in the journal and in this machine's spool, add it up, and remove old reports. Never raises.

    Args:
        connection: a client of the server with the journal.
        settings: the settings that hold for the worker.
    """
    holder = f"maintenance {uuid4().hex}"
    try:
        remove_stale_holders(connection)
        if not slots.take(connection, holder, settings.report_connections, MOST_SECONDS):
            return  # Enough others are at it.
    except RedisError as error:
        logger.warning(log.STALE_HOLDERS, error)
    archive.archive_pending(Journal(connection), ARCHIVE_SECONDS)
    archive.archive_pending(Spool(settings.spool_dir), ARCHIVE_SECONDS)
    try:
        resumed.move(connection, ARCHIVE_SECONDS)
    except RedisError as error:
        logger.warning(log.NOT_MOVED, error)
    Bounded(lambda: _keep_tables(settings)).wait(TABLES_SECONDS)
    with suppress(RedisError):  # It expires.
        slots.free(connection, holder)


def _keep_tables(settings: Settings) -> None:
    """Runs in its own thread, so the connections that it closes are its own."""
    try:
        roll_up(ROLL_UP_SECONDS)
        archive.remove_old(settings.reports_keep)
        fold_old(settings.reports_keep)
    finally:
        connections.close_all()
