"""The search of the list, by an index whatever is searched for.

Names that begin with a word are found by the name's index. Few of them are then sorted by time. Many would take too
long to sort: the reports are read in the order of time instead, and every so many of them matches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import connections
from django.db.models import F, Max, Q, QuerySet
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from graceful.models import ReportedJob, ShutdownReport

FIELDS = ("worker", "hostname", "release")
MOST_WORDS = 5
MOST_REPORTS_OF_A_JOB = 1000
MOST_SORTED = 2_000
"""Matches of a word that are sorted by time."""
MOST_LOOKED_AT = 50_000
"""Matches of a word among which the newest is looked for, so that reading begins there."""
LAST_CHARACTER = "\U0010ffff"

Reports = QuerySet[ShutdownReport]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found, as two querysets of the same reports.

    Args:
        counted: found by the names' indexes.
        listed: to be read in the order of the list; the same as ``counted`` where few match.
    """

    counted: Reports
    listed: Reports


def found_by(queryset: Reports, text: str) -> Found:
    """Reports for which each word of ``text`` begins worker, host or release, or is the id of a job or the report."""
    counted = listed = queryset
    few = True
    for word in text.replace("\x00", "").split()[:MOST_WORDS]:
        # Queried first: a subquery under OR would keep PostgreSQL from using any index.
        of_job = ReportedJob.objects.filter(job_id=word).order_by("-id").values_list("report_id", flat=True)
        exact = Q(pk=word) | Q(pk__in=list(of_job[:MOST_REPORTS_OF_A_JOB]))
        counted = counted.filter(_any(exact, word, _begins(queryset)))
        matches = max(_count(queryset, field, word) for field in FIELDS)
        few = few and matches <= MOST_SORTED
        listed = listed.filter(_any(exact, word, _begins_unindexed))
        if MOST_SORTED < matches <= MOST_LOOKED_AT and (newest := _newest(queryset, exact, word)):
            listed = listed.filter(happened_at__lte=newest)
    return Found(counted, counted if few else listed)


Begins = Callable[[str, str], Q]


def _any(exact: Q, word: str, begins: Begins) -> Q:
    found = exact
    for field in FIELDS:
        found |= begins(field, word)
    return found


def _begins(queryset: Reports) -> Begins:
    if connections[queryset.db].vendor == "sqlite":
        # SQLite's LIKE ignores case and so cannot use the index; comparisons are by code point.
        return lambda field, word: Q(**{f"{field}__gte": word, f"{field}__lt": word + LAST_CHARACTER})
    return lambda field, word: Q(**{f"{field}__startswith": word})


def _begins_unindexed(field: str, word: str) -> Q:
    return Q(Exact(Left(F(field), len(word)), word))


def _matching(queryset: Reports, field: str, word: str) -> Reports:
    return ShutdownReport.objects.using(queryset.db).filter(_begins(queryset)(field, word)).order_by()


def _count(queryset: Reports, field: str, word: str) -> int:
    return _matching(queryset, field, word)[: MOST_LOOKED_AT + 1].count()


def _newest(queryset: Reports, exact: Q, word: str) -> datetime | None:
    found = [_matching(queryset, field, word) for field in FIELDS]
    found.append(ShutdownReport.objects.using(queryset.db).filter(exact).order_by())
    newest = [each.aggregate(newest=Max("happened_at"))["newest"] for each in found]
    return max((moment for moment in newest if moment is not None), default=None)
