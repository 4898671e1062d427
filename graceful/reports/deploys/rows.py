"""Reads the rows of one deploy: a bounded number of queries, each bounded and answered by an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from graceful.core.phases import Reason
from graceful.core.records import Grace, Spans
from graceful.models import Release, ShutdownReport
from graceful.reports.deploys.details import finite, with_details
from graceful.reports.deploys.projection import (
    CLOSE_OF_RELEASE_SECONDS,
    CLOSE_SECONDS,
    PART,
    close_in_time,
    first_starts,
)
from graceful.reports.deploys.records import Material, Member, Start
from graceful.reports.rows import read_time, read_time_or_none, shifted, stored_time

MOST_WORKERS = 2500
"""Shutdowns that are read for one deploy; beyond that, the newest ones are shown."""
MOST_RELEASES = 200
MEMBER_FIELDS = (
    *("id", "worker", "hostname", "release", "started_at", "reason", "signal", "outcome", "phase"),
    *("requested_at", "drained_at", "ended_at", "drain_seconds", "hooks_seconds", "total_seconds"),
    *("grace_period", "hooks_timeout", "interrupt_timeout", "recycled"),
)


@dataclass(frozen=True, slots=True)
class Living:
    """The living workers, and whether every server was reached."""

    workers: tuple[Member, ...] = ()
    known: bool = True


def last_material(living: Living, now: datetime) -> Material | None:
    """The deploy that is under way or was last; None if no worker was ever asked to end.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    stopping = [each for each in living.workers if each.stopping]
    newest = max(stopping, key=lambda each: (each.happened_at, each.id), default=None)
    # Of a killed worker the reason is "killed", whether or not it had been asked to end.
    found = [_newest(reason=reason) for reason in (Reason.SIGNAL, Reason.COMMAND)]
    found.append(_newest(reason=Reason.KILLED, requested_at__isnull=False))
    # Killed without having been asked: a deploy all the same where a later release has come in its place.
    killed = _newest(reason=Reason.KILLED)
    known = known_releases()
    if killed is not None and any(at > killed.started_at for label, at in known.items() if label != killed.release):
        found.append(killed)
    stored = max((row for row in found if row is not None), key=lambda each: each.happened_at, default=None)
    if newest is None or (stored is not None and stored.happened_at > newest.happened_at):
        newest = stored
    return None if newest is None else _material_around(newest, living, now)


def material_of_release(label: str, living: Living, now: datetime, after: str = "") -> Material | None:
    """The deploy in which this release ended or ends; None if no worker of it is known.

    Args:
        label: the release.
        living: the living workers.
        now: the time.
        after: the release that came after it, found out if empty.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    known = known_releases()
    reports = ShutdownReport.objects.filter(release=label)
    rows = _members(reports.order_by("-happened_at", "-id")[: MOST_WORKERS + 1])
    if not rows and label not in known and all(each.release != label for each in living.workers):
        return None
    next_release = after or _next_release(label, known, living.workers)
    members = sorted(rows[:MOST_WORKERS], key=lambda each: (each.happened_at, each.id))
    # A release that was rolled back to is started anew.
    since = first_starts(living.workers).get(next_release) or known.get(next_release)
    part = [each for each in members if each.reason in PART]
    if since is not None:
        later = [each for each in part if each.happened_at >= shifted(since, -CLOSE_SECONDS)]
        part = later or part
    part = _run(part, _anchor(part), CLOSE_OF_RELEASE_SECONDS if label else CLOSE_SECONDS)
    starts = _starts_of(next_release, part, living.workers)
    return with_details(
        Material(
            release=label,
            now=now,
            ended=tuple(part),
            apart=_apart(members, part),
            living=living.workers,
            living_known=living.known,
            next_release=next_release,
            starts=tuple(starts),
            more=len(rows) > MOST_WORKERS,
            known=known,
        )
    )


def material_of_report(report_id: str, living: Living, now: datetime) -> Material | None:
    """The deploy that this shutdown was part of; None if there is no such report.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    rows = _members(ShutdownReport.objects.filter(pk=report_id))
    return _material_around(rows[0], living, now) if rows else None


def last_release_but(label: str) -> str | None:
    """The release of the newest shutdown of another release, killed workers included; None if there is none.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    newest = ShutdownReport.objects.filter(reason__in=PART).order_by("-happened_at", "-id")
    releases = newest.values_list("release", flat=True)[:MOST_WORKERS]
    return next((release for release in releases if release != label), None)


def known_releases() -> dict[str, datetime]:
    """The newest releases with their first start, the newest first."""
    rows = Release.objects.order_by("-started_at", "-label").values_list("label", "started_at")
    return {label: read_time(at) for label, at in rows[:MOST_RELEASES]}


def _material_around(anchor: Member, living: Living, now: datetime) -> Material | None:
    if anchor.release:
        return material_of_release(anchor.release, living, now)
    around = [shifted(anchor.happened_at, sign * 6 * CLOSE_SECONDS) for sign in (-1, 1)]
    before = ShutdownReport.objects.filter(
        release="", happened_at__range=(stored_time(around[0]), stored_time(anchor.happened_at))
    )
    after = ShutdownReport.objects.filter(
        release="", happened_at__range=(stored_time(anchor.happened_at), stored_time(around[1]))
    )
    rows = [
        *_members(before.order_by("-happened_at", "-id")[: MOST_WORKERS // 2 + 1]),
        *_members(after.order_by("happened_at", "id")[: MOST_WORKERS // 2 + 1]),
    ]
    members = sorted({each.id: each for each in rows}.values(), key=lambda each: (each.happened_at, each.id))
    part = [each for each in members if each.reason in PART]
    at = next((index for index, each in enumerate(part) if each.id == anchor.id), len(part) - 1)
    part = _run(part, at, CLOSE_SECONDS)
    known = known_releases()
    # The next workers may have no release either: they were started while these ended.
    first, last = _span(part, now)
    later = ShutdownReport.objects.filter(happened_at__gte=stored_time(first)).order_by("happened_at", "id")
    starts = [
        Start(worker, release, read_time(at))
        for worker, release, at in later.values_list("worker", "release", "started_at")[:MOST_WORKERS]
    ]
    starts += [Start(each.worker, each.release, each.started_at) for each in living.workers]
    starts = [each for each in starts if first <= each.at <= shifted(last, CLOSE_SECONDS)]
    return with_details(
        Material(
            release="",
            now=now,
            ended=tuple(part),
            apart=_apart(members, part),
            living=living.workers,
            living_known=living.known,
            next_release=Counter(each.release for each in starts).most_common(1)[0][0] if starts else "",
            starts=tuple(starts),
            more=len(rows) > MOST_WORKERS,
            known=known,
        )
    )


def _newest(**filters: Any) -> Member | None:
    rows = _members(ShutdownReport.objects.filter(**filters).order_by("-happened_at", "-id")[:1])
    return rows[0] if rows else None


def _members(reports: QuerySet[ShutdownReport]) -> list[Member]:
    return [_member(row) for row in reports.values_list(*MEMBER_FIELDS)]


def _member(row: Sequence[Any]) -> Member:
    moments = [read_time_or_none(each) for each in row[9:12]]
    spans, grace = Spans(*map(finite, row[12:15])), Grace(*map(finite, row[15:18]))
    reason = row[18] or row[5]
    return Member(*row[:4], read_time(row[4]), reason, *row[6:9], *moments, spans, grace)  # type: ignore[call-arg]


def _anchor(part: Sequence[Member]) -> int:
    """The newest whose end somebody asked for: one that crashed or was killed alone is no deploy."""
    asked = [index for index, each in enumerate(part) if each.requested_at is not None]
    return asked[-1] if asked else len(part) - 1


def _run(part: list[Member], anchor: int, seconds: float) -> list[Member]:
    if not part:
        return []
    first, last = close_in_time([each.happened_at for each in part], anchor, seconds)
    return part[first:last]


def _span(part: Sequence[Member], now: datetime) -> tuple[datetime, datetime]:
    first = min((each.happened_at for each in part), default=now)
    return first, max((each.ended_at or each.happened_at for each in part), default=now)


def _apart(members: Iterable[Member], part: Sequence[Member]) -> Mapping[str, int]:
    """Shutdowns for other reasons at about that time, by reason."""
    if not part:
        return {}
    first, last = part[0].happened_at, part[-1].happened_at
    first, last = shifted(first, -CLOSE_SECONDS), shifted(last, CLOSE_SECONDS)
    return Counter(
        each.reason or "unknown" for each in members if each.reason not in PART and first <= each.happened_at <= last
    )


def _next_release(label: str, known: Mapping[str, datetime], living: Sequence[Member]) -> str:
    """The release that came after this one: of those that live or are known, the first that started later."""
    starts = first_starts(living)
    since = known.get(label)
    # After a rollback the next one is an older label, whose workers have been started anew.
    alive = [
        (at, other)
        for other, at in starts.items()
        if other not in ("", label) and (label not in starts or at > starts[label])
    ]
    later = [(at, other) for other, at in known.items() if since is not None and at > since]
    return min(later or alive, default=(None, ""))[1]


def _starts_of(release: str, part: Sequence[Member], living: Sequence[Member]) -> list[Start]:
    """Starts of the next release's workers at about the time of the deploy."""
    if not release or not part:
        return []
    first, last = part[0].happened_at, max(each.ended_at or each.happened_at for each in part)
    first, last = shifted(first, -CLOSE_SECONDS), shifted(last, CLOSE_SECONDS)
    reports = ShutdownReport.objects.filter(release=release, happened_at__gte=stored_time(first))
    rows = reports.order_by("happened_at", "id").values_list("worker", "started_at")[:MOST_WORKERS]
    starts = [Start(worker, release, read_time(at)) for worker, at in rows]
    starts += [Start(each.worker, release, each.started_at) for each in living if each.release == release]
    return sorted((each for each in starts if first <= each.at <= last), key=lambda each: (each.at, each.worker))
