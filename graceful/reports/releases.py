"""The states of releases, as Temporal shows those of versions: active, draining, drained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Subquery

from graceful.models import Release, ShutdownReport
from graceful.reports.deploys.projection import first_starts, stale_workers
from graceful.reports.deploys.records import Deploy, Member
from graceful.reports.noted_releases import note_release
from graceful.reports.rows import read_time, read_time_or_none

SHOWN = 20


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """One release.

    Args:
        state: ``active`` (the newest that runs), ``draining`` (an earlier one of which workers still run),
            ``drained`` (none runs), or ``unknown`` (Redis is unreachable).
        started_at: its first start, None if it is not known.
        workers: its living workers, of which ``stopping`` are stopping.
        last_at: its newest shutdown.
    """

    label: str
    state: str
    started_at: datetime | None
    workers: int = 0
    stopping: int = 0
    last_at: datetime | None = None


def note_living(living: Iterable[Member], known: Mapping[str, datetime]) -> None:
    """Note the releases of living workers that are not known yet.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    for label, at in first_starts(living).items():
        if label and (label not in known or at < known[label]):
            note_release(label, at)


def release_states(living: Sequence[Member], living_known: bool) -> list[ReleaseState]:
    """The newest releases, the newest first.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    newest_report = ShutdownReport.objects.filter(release=OuterRef("label")).order_by("-happened_at", "-id")
    rows = (
        Release.objects.annotate(last_at=Subquery(newest_report.values("happened_at")[:1]))
        .order_by("-started_at", "-label")
        .values_list("label", "started_at", "last_at")[:SHOWN]
    )
    found = {label: (read_time(at), read_time_or_none(last)) for label, at, last in rows}
    newest, _stale = stale_workers(living, {label: at for label, (at, _last) in found.items()})
    labels = [*found, *sorted({each.release for each in living} - found.keys())]
    return [_state(label, living, living_known, newest, *found.get(label, (None, None))) for label in labels]


def release_state(label: str, deploy: Deploy) -> ReleaseState:
    """The state of one release, from what was read for its deploy."""
    material = deploy.material
    last = material.ended[-1].happened_at if material.ended else None
    return _state(label, material.living, material.living_known, deploy.newest, material.known.get(label), last)


def _state(
    label: str,
    living: Sequence[Member],
    living_known: bool,
    newest: str | None,
    started_at: datetime | None,
    last_at: datetime | None,
) -> ReleaseState:
    there = [each for each in living if each.release == label]
    state = "drained" if living_known else "unknown"
    if there:
        state = "active" if label == newest else "draining"
    at = started_at or first_starts(there).get(label)
    return ReleaseState(label, state, at, len(there), sum(each.stopping for each in there), last_at)
