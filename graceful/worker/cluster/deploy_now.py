"""The deploy that a page or the JSON shows: of the reports, those that still wait in Redis included, and who lives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from graceful.core.records import utc_now
from graceful.reports.deploys.projection import deploy_of
from graceful.reports.deploys.records import Deploy, Material
from graceful.reports.deploys.rows import Living
from graceful.reports.releases import note_living
from graceful.reports.sources import page_archiver
from graceful.worker.cluster.whole_fleet import page_fleet, where_now

ARCHIVE_SECONDS = 0.5
FLEET_SECONDS = 1.0
JOBS_SECONDS = 0.3

Reader = Callable[[Living, datetime], Material | None]


def deploy_now(read: Reader) -> Deploy | None:
    """The deploy that ``read`` finds, in bounded time; None if there is none.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    # Nobody is reaped here: a page that refreshes itself is not to do so.
    page_archiver.run(ARCHIVE_SECONDS)
    living = page_fleet.read(FLEET_SECONDS)
    material = read(living, utc_now())
    if material is None:
        return None
    note_living(living.workers, material.known)
    if living.known:
        material = material.with_jobs(where_now(material.interrupted, JOBS_SECONDS))
    return deploy_of(material)
