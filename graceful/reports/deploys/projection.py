"""From what was read to the deploy: pure, without a clock, for any set of reports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from graceful.core.outcome import GRAVE, INTERRUPTED
from graceful.core.phases import Outcome, Reason
from graceful.reports.deploys.records import Capacity, Deploy, Headroom, Kill, Material, Member, Verdict

CLOSE_SECONDS = 600.0
"""Shutdowns of workers without a release that are no further apart belong to one deploy."""
CLOSE_OF_RELEASE_SECONDS = 7200.0
"""The same for shutdowns of one release: a canary may be watched for a while before the others follow."""
PART = frozenset({Reason.SIGNAL, Reason.COMMAND, Reason.KILLED, Reason.ERROR, Reason.REDIS_LOST})
"""Reasons of shutdowns that can be part of a deploy; a worker that ends of itself (burst, idle, ...) is not."""
MOST_STACKS = 20
LATE_SECONDS = 5.0
"""A worker that seems to have been killed so long after its own deadline was found dead late: it teaches nothing."""


def deploy_of(material: Material) -> Deploy:
    """The deploy. Never raises, whatever the reports say."""
    stopping = tuple(each for each in material.living if each.stopping and each.release == material.release)
    # A report may be sealed and not yet archived, or archived and not yet removed: one worker is counted once.
    there = {each.id for each in material.ended}
    stopping = tuple(each for each in stopping if each.id not in there)
    members = tuple(sorted((*material.ended, *stopping), key=lambda each: (each.happened_at, each.id)))
    newest, stale = stale_workers(material.living, material.known)
    waiting = tuple(
        each
        for each in material.living
        if each.release == material.release and not each.stopping and newest != material.release
    )
    outcomes = Counter(each.outcome or "unknown" for each in material.ended)
    began = min((each.requested_at or each.happened_at for each in members), default=None)
    over = max((each.ended_at or each.happened_at for each in members), default=None)
    recent = over is not None and (material.now - over).total_seconds() < CLOSE_SECONDS
    under_way = bool(stopping) or (bool(waiting) and recent)
    interrupted = sum(count for outcome, count in material.jobs.items() if outcome in INTERRUPTED)
    waits = [job.waited for job in material.interrupted if job.waited is not None]
    return Deploy(
        material=material,
        verdict=verdict_of(outcomes, interrupted),
        under_way=under_way,
        began_at=began,
        ended_at=None if stopping else over,
        members=members,
        outcomes=outcomes,
        waiting=waiting,
        stale=stale,
        newest=newest,
        running=Counter(each.release for each in material.living),
        slowest=max(
            (each for each in material.ended if each.seconds.total is not None),
            key=lambda each: each.seconds.total or 0.0,
            default=None,
        ),
        headroom=headroom(material.ended),
        capacity=_capacity(members, waiting, material),
        interrupted=interrupted,
        again=sum(job.again_at is not None for job in material.interrupted),
        again_seconds=max(waits, default=None),
        failed=sum(job.failed for job in material.interrupted),
        canceled=sum(job.canceled for job in material.interrupted),
        stacks=tuple(Counter(job.stack for job in material.interrupted if job.stack).most_common(MOST_STACKS)),
    )


def verdict_of(outcomes: Mapping[str, int], interrupted: int = 0) -> Verdict:
    """The gravest thing wins.

    Args:
        outcomes: how many workers ended how.
        interrupted: how many jobs the shutdowns did not let finish.
    """
    if any(outcomes.get(each) for each in GRAVE):
        return Verdict.FAILED
    if outcomes.get(Outcome.INTERRUPTED) or interrupted:
        return Verdict.INTERRUPTED
    return Verdict.CLEAN


def close_in_time(moments: Sequence[datetime], anchor: int, seconds: float) -> tuple[int, int]:
    """The run around ``anchor`` in which no two neighbours are further apart than ``seconds``.

    Args:
        moments: ascending.
        anchor: an index into it.

    Returns:
        the first index, and the one after the last.
    """
    first = last = anchor
    while first > 0 and (moments[first] - moments[first - 1]).total_seconds() <= seconds:
        first -= 1
    while last + 1 < len(moments) and (moments[last + 1] - moments[last]).total_seconds() <= seconds:
        last += 1
    return first, last + 1


def first_starts(living: Iterable[Member]) -> dict[str, datetime]:
    """The earliest start of a living worker of each release."""
    found: dict[str, datetime] = {}
    for each in living:
        if each.release not in found or each.started_at < found[each.release]:
            found[each.release] = each.started_at
    return found


def stale_workers(
    living: Sequence[Member], known: Mapping[str, datetime], target: str | None = None
) -> tuple[str | None, tuple[Member, ...]]:
    """The newest release that runs, and the living workers of those before it.

    A release counts as earlier if its workers were started before those of the target, or if it first appeared
    before it. Either is enough: after a rollback the target is the older label, and a replica of the old release that
    was added late was started after the target.

    Args:
        living: all living workers.
        known: releases and their first start.
        target: the release that is to run; the one whose living workers were started last if it is None.
    """
    starts = first_starts(living)
    if target is None:
        asked = {each.release for each in living if not each.stopping} or set(starts)
        target = max(asked, key=lambda label: (starts[label], label), default=None)
        if target is None:
            return None, ()

    def earlier(label: str) -> bool:
        before = target in starts and starts[label] < starts[target]
        both = target in known and label in known
        if target not in starts:
            return not (both and known[label] > known[target])
        return before or (both and known[label] < known[target])

    older = {label for label in starts if label != target and earlier(label)}
    return target, tuple(each for each in living if each.release in older)


def headroom(ended: Sequence[Member]) -> Headroom:
    """What the shutdowns took of what they were allowed."""
    periods = [each.grace.period for each in ended if each.grace.period is not None]
    allowed = [
        max(0.0, each.grace.period - (each.grace.hooks or 0.0) - (each.grace.interrupt or 0.0))
        for each in ended
        if each.grace.period is not None
    ]
    drains = sorted(each.seconds.drain for each in ended if each.seconds.drain is not None)
    hooks = [each.seconds.hooks for each in ended if each.seconds.hooks is not None]
    return Headroom(
        period=min(periods, default=None),
        drain_allowed=min(allowed, default=None),
        drain_p95=drains[math.ceil(0.95 * len(drains)) - 1] if drains else None,
        drain_most=drains[-1] if drains else None,
        hooks_allowed=min((each.grace.hooks for each in ended if each.grace.hooks is not None), default=None),
        hooks_most=max(hooks, default=None),
        total_most=max((each.seconds.total for each in ended if each.seconds.total is not None), default=None),
        kills=tuple(kill for kill in map(_kill, ended) if kill is not None),
    )


def _kill(member: Member) -> Kill | None:
    if member.outcome != Outcome.KILLED or member.requested_at is None or member.ended_at is None:
        return None
    seconds = (member.ended_at - member.requested_at).total_seconds()
    period = member.grace.period
    if seconds < 0 or (period is not None and seconds > period + LATE_SECONDS):
        return None
    return Kill(member.worker, member.phase, seconds)


def _capacity(members: Sequence[Member], waiting: Sequence[Member], material: Material) -> Capacity | None:
    """How many workers took jobs, from just before the first request until all is over."""
    asked = [each.requested_at or each.happened_at for each in members]
    if not asked or not material.starts:
        return None
    began = min(asked)
    end = max([material.now] if any(each.living for each in members) else [], default=None) or max(
        *(each.ended_at or each.happened_at for each in members), *(start.at for start in material.starts)
    )
    changes = Counter(asked)
    changes = Counter({at: -count for at, count in changes.items()})
    before = 0
    # A worker of the same release may have been started, or started again, while others ended already.
    for at in (*(each.started_at for each in (*members, *waiting)), *(start.at for start in material.starts)):
        if at <= began:
            before += 1
        elif at <= end:
            changes[at] += 1
    number, lowest, below, since = before, before, 0.0, began
    steps = [(began, before)]
    for at in sorted(changes):
        if number < before:
            below += (at - since).total_seconds()
        number, since = number + changes[at], at
        lowest = min(lowest, number)
        steps.append((at, number))
    if number < before and end > since:
        below += (end - since).total_seconds()
    return Capacity(before, lowest, below, tuple(steps))
