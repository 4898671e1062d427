"""What workers do for reports now and then: bring home those that wait somewhere, remove those that are old."""

from __future__ import annotations

import logging

import redis
from django.db import connections
from redis.exceptions import RedisError

from graceful.conf import Settings
from graceful.reports import archive
from graceful.reports.journal import Journal
from graceful.reports.spool import Spool
from graceful.worker.cluster.heartbeat import forget_holders
from graceful.worker.shutdown.threads import Bounded

log = logging.getLogger("graceful.worker")

HOME_SECONDS = 2.0
REMOVE_SECONDS = 5.0


def run_maintenance(connection: redis.Redis, settings: Settings) -> None:
    """Archive what waits in the journal and in this machine's spool, and remove old reports. Never raises.

    Args:
        connection: a client of the server with the journal.
        settings: the settings that hold for the worker.
    """
    archive.archive_pending(Journal(connection), HOME_SECONDS)
    archive.archive_pending(Spool(settings.spool_dir), HOME_SECONDS)
    try:
        forget_holders(connection)
    except RedisError as error:
        log.warning("Holders of jobs that no longer exist were not removed: %s", error)
    Bounded(lambda: _remove_old(settings)).wait(REMOVE_SECONDS)


def _remove_old(settings: Settings) -> None:
    """In a thread of its own, so the connections that it closes are its own too."""
    try:
        archive.remove_old(settings.reports_keep)
    finally:
        connections.close_all()
