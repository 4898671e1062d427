"""Notes a release when a worker of a new label is first seen, so that pages and trends know when it came."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import Error, router

from graceful.core import records
from graceful.core.text import cut
from graceful.models import NAME_LENGTH, Release
from graceful.reports import log
from graceful.reports.rows import read_time, stored_time

logger = logging.getLogger("graceful.reports")


def note_release(label: str, at: datetime, using: str | None = None) -> bool:
    """Note a release, or that it started earlier than is noted. A label that is noted is not written again.

    Args:
        label: of the release; an empty one is none.
        at: the start of one of its workers.
        using: alias of the database.

    Returns:
        whether it is a new one.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    label = cut(label, NAME_LENGTH)
    if not label:
        return False
    releases = Release.objects.using(using or router.db_for_write(Release))
    noted = releases.filter(pk=label).values_list("started_at", flat=True).first()
    if noted is None:
        releases.bulk_create([Release(label=label, started_at=stored_time(at))], ignore_conflicts=True)
        return True
    if read_time(noted) > at:
        releases.filter(pk=label, started_at__gt=stored_time(at)).update(started_at=stored_time(at))
    return False


def note_release_of(report: records.ShutdownReport, using: str) -> None:
    """Note the release of a report that was archived. Never raises: the report is what matters."""
    try:
        note_release(report.release, report.started_at, using)
    except (Error, ValueError, OverflowError) as error:
        logger.info(log.RELEASE_NOT_NOTED, error)
