"""Which report "Last shutdown report" opens, which others are near a report, and the count in the admin's index.

A clean report must not hide a bad one: a worker that starts after a kill closes the dead worker's report and may have
ended itself by the time somebody looks, and of several workers that a deploy stops, the last is rarely the worst.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from django.db import DatabaseError, router, transaction
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.outcome import GRAVE
from graceful.core.phases import Outcome
from graceful.core.records import utc_now
from graceful.labels import label
from graceful.models import RecentlyUnclean, ShutdownReport
from graceful.reports.rows import shifted, stored_time
from graceful.reports.sentences import listed

NEAR_SECONDS = 600.0
"""Shutdowns closer than this belong together, as those of one deploy do."""
MOST_NEAR = 2500
UNCLEAN = (*GRAVE, Outcome.INTERRUPTED)
"""The worst first."""
RANK = {str(outcome): rank for rank, outcome in enumerate(UNCLEAN)}
COUNT_SECONDS = 30.0
"""How long a process shows a count before it asks again."""
COUNT_LIMIT = 100


class Around(NamedTuple):
    """The shutdowns near a report: what they were in one sentence, and the list of them."""

    sentence: str
    url: str


def last_report() -> str | None:
    """The id of the newest report, or of the worst that is at most ``NEAR_SECONDS`` older; of equals, of the newest."""
    newest = ShutdownReport.objects.order_by("-happened_at", "-id").values_list("pk", "happened_at").first()
    if newest is None:
        return None
    near = ShutdownReport.objects.filter(outcome__in=UNCLEAN, happened_at__gte=shifted(newest[1], -NEAR_SECONDS))
    found = near.order_by("-happened_at", "-id").values_list("pk", "outcome")[:MOST_NEAR]
    return min(found, key=lambda row: RANK.get(str(row[1]), 0), default=newest)[0]


def around(row: ShutdownReport, site_name: str) -> Around | None:
    """The other shutdowns within ``NEAR_SECONDS`` of this one; None if there are none."""
    begin, end = shifted(row.happened_at, -NEAR_SECONDS), shifted(row.happened_at, NEAR_SECONDS)
    near = ShutdownReport.objects.filter(happened_at__gte=begin, happened_at__lt=end).order_by()
    outcomes = list(near.values_list("outcome", flat=True)[: MOST_NEAR + 1])
    others = len(outcomes) - 1
    if others < 1:
        return None
    counted = Counter(outcomes)
    parts = [
        _("%(count)d %(outcome)s") % {"count": counted[outcome], "outcome": label(outcome)}
        for outcome in (*UNCLEAN, Outcome.CLEAN)
        if counted[outcome]
    ]
    if others >= MOST_NEAR:
        sentence = _("At least %(count)d other shutdowns within 10 minutes.") % {"count": MOST_NEAR}
    else:
        sentence = ngettext(
            "%(count)d other shutdown within 10 minutes; with this one: %(outcomes)s.",
            "%(count)d other shutdowns within 10 minutes; with this one: %(outcomes)s.",
            others,
        ) % {"count": others, "outcomes": listed(parts)}
    query = urlencode({"happened_at__gte": begin.isoformat(), "happened_at__lt": end.isoformat()})
    return Around(sentence, f"{reverse('admin:graceful_shutdownreport_changelist', current_app=site_name)}?{query}")


class UncleanCounter:
    """Keeps the count in the admin's index: unclean shutdowns of the last 24 hours, asked for now and then."""

    def __init__(self) -> None:
        self._again_at = 0.0

    def refresh(self) -> None:
        """Count again if the count is old; never raises: the index must be there before the tables are."""
        now = time.monotonic()
        if now < self._again_at:
            return
        self._again_at = now + COUNT_SECONDS
        since = stored_time(utc_now() - timedelta(days=1))
        try:
            with transaction.atomic(using=router.db_for_read(ShutdownReport)):
                unclean = ShutdownReport.objects.filter(outcome__in=UNCLEAN, happened_at__gte=since).order_by()
                RecentlyUnclean.count = unclean[:COUNT_LIMIT].count()
        except DatabaseError:
            RecentlyUnclean.count = 0

    def forget(self) -> None:
        self._again_at = 0.0


unclean_counter = UncleanCounter()
