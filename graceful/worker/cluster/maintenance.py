"""A worker's periodic maintenance: archives reports that wait, removes old ones and stale entries."""

from __future__ import annotations

import logging

import redis
from django.db import connections
from redis.exceptions import RedisError

from graceful.conf import Settings
from graceful.reports import archive, resumed
from graceful.reports.journal import Journal
from graceful.reports.spool import Spool
from graceful.worker.cluster import log
from graceful.worker.cluster.heartbeat import remove_stale_holders
from graceful.worker.shutdown.threads import Bounded

logger = logging.getLogger("graceful.worker")

ARCHIVE_SECONDS = 2.0
REMOVE_SECONDS = 5.0


def run_maintenance(connection: redis.Redis, settings: Settings) -> None:
    """Archive what waits in the journal and in this machine's spool, and remove old reports. Never raises.

    Args:
        connection: a client of the server with the journal.
        settings: the settings that hold for the worker.
    """
    archive.archive_pending(Journal(connection), ARCHIVE_SECONDS)
    archive.archive_pending(Spool(settings.spool_dir), ARCHIVE_SECONDS)
    try:
        resumed.move(connection, ARCHIVE_SECONDS)
        remove_stale_holders(connection)
    except RedisError as error:
        logger.warning(log.STALE_HOLDERS, error)
    Bounded(lambda: _remove_old(settings)).wait(REMOVE_SECONDS)


def _remove_old(settings: Settings) -> None:
    """Runs in its own thread, so the connections that it closes are its own."""
    try:
        archive.remove_old(settings.reports_keep)
    finally:
        connections.close_all()
