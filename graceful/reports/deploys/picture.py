"""The picture of a deploy: a bar a worker, the old release's end and the new one's start on one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from graceful.core.outcome import GRAVE, WENT_WRONG
from graceful.core.phases import HookOutcome, Outcome, Phase
from graceful.core.text import one_line
from graceful.labels import stored_label
from graceful.reports.deploys.details import SINGLE_BARS
from graceful.reports.deploys.records import Deploy, HookRun, Member, Start
from graceful.reports.deploys.shapes import Axis, Block, Part, Picture, Row, Tick
from graceful.reports.rows import shifted
from graceful.reports.text import seconds_text, short_name

GROUPS = 40
NAME_LENGTH = 40
MOST_STARTS = 12
TICKS = 6
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
MOST_STEPS = 400
LONG_AGAINST_BAR = 30
"""A deploy that took so many times as long as its median shutdown is drawn with each bar from its own request on."""


def picture(deploy: Deploy) -> Picture | None:
    """The picture; None if there is nothing to draw."""
    if not deploy.members or deploy.began_at is None:
        return None
    aligned = _is_long(deploy)
    members = [_moved(each, deploy.began_at) for each in deploy.members] if aligned else deploy.members
    axis = _axis(deploy, members, aligned)
    grouped = len(members) > SINGLE_BARS
    if grouped:
        rows = tuple(_group_row(label, group, axis) for label, group in _groups(members))
    else:
        hooks: dict[str, list[HookRun]] = {}
        for run in deploy.material.runs:
            hooks.setdefault(run.report, []).append(run)
        rows = tuple(_row(each, hooks.get(each.id, []), axis, deploy.material.now) for each in members)
    starts = () if aligned else _starts(deploy, axis)
    blocks = () if aligned else _blocks(deploy, axis)
    kinds = {part.kind for row in (*rows, *starts) for part in row.parts}
    if any(row.deadline for row in rows):
        kinds.add("deadline")
    return Picture(rows, starts, _ticks(axis), blocks, grouped, aligned, frozenset(kinds))


def _is_long(deploy: Deploy) -> bool:
    """Whether the bars would be too narrow to be seen on one axis."""
    if deploy.under_way or len(deploy.members) < 2:
        return False
    bars = [(each.ended_at or each.happened_at) - each.happened_at for each in deploy.members]
    usual = max(0.2, median(bar.total_seconds() for bar in bars))
    asked = [each.happened_at for each in deploy.members]
    return (max(asked) - min(asked)).total_seconds() > LONG_AGAINST_BAR * usual


def _moved(member: Member, began: datetime) -> Member:
    """As if its shutdown had been requested when the deploy began."""
    seconds = (began - member.happened_at).total_seconds()
    moved = {
        name: at and shifted(at, seconds)
        for name, at in (
            ("requested_at", member.requested_at),
            ("drained_at", member.drained_at),
            ("ended_at", member.ended_at),
        )
    }
    return replace(member, started_at=shifted(member.started_at, seconds), **moved)  # type: ignore[arg-type]


def _axis(deploy: Deploy, members: Sequence[Member], aligned: bool) -> Axis:
    assert deploy.began_at is not None
    ends = [each.ended_at or each.happened_at for each in members]
    if deploy.under_way:
        ends.append(deploy.material.now)
    first, last = deploy.began_at, max(ends)
    span = max(1.0, (last - first).total_seconds())
    # Starts within as long before and after as the shutdowns took are shown; others would squeeze the bars.
    around = [
        start.at
        for start in deploy.material.starts
        if not aligned and shifted(first, -span) <= start.at <= shifted(last, 2 * span)
    ]
    first, last = min([first, *around]), max([last, *around])
    margin = max(0.5, (last - first).total_seconds()) * 0.03
    return Axis(shifted(first, -margin), shifted(last, margin))


def _row(member: Member, hooks: Sequence[HookRun], axis: Axis, now: datetime) -> Row:
    asked = member.requested_at
    end = member.ended_at or (now if member.living else member.happened_at)
    parts = []
    if asked is not None:
        parts += [axis.part("work", axis.first, asked, _("takes jobs")), *_shutdown(member, hooks, asked, end, axis)]
    elif member.started_at < end:
        parts.append(axis.part("work", max(axis.first, member.started_at), end, _("takes jobs")))
    if member.outcome == Outcome.KILLED:
        parts.append(axis.part("killed", end, shifted(end, axis.seconds / 150), _("last seen")))
    deadline = ""
    if asked is not None and member.grace.period is not None:
        at = shifted(asked, member.grace.period)
        if axis.first <= at <= shifted(axis.first, axis.seconds):
            deadline = f"{axis.at(at):.2f}%"
    if member.outcome:
        state, words = member.outcome, stored_label(Outcome, member.outcome)
    elif member.living:
        state, words = "stopping", _("stopping")
    else:
        state, words = member.phase, stored_label(Phase, member.phase)
    return Row(
        label=short_name(member.worker, NAME_LENGTH),
        title=one_line(member.worker),
        report="" if member.living else member.id,
        state=state,
        words=words,
        seconds=seconds_text(max(0.0, (end - asked).total_seconds()) if asked else member.seconds.total),
        parts=tuple(parts),
        deadline=deadline,
    )


def _shutdown(member: Member, hooks: Sequence[HookRun], asked: datetime, end: datetime, axis: Axis) -> list[Part]:
    """The parts from the request to the end."""
    drained = member.drained_at or end
    soft = _soft_limit(member, asked)
    parts = []
    if soft is not None and soft < drained:
        parts.append(axis.part("drain", asked, soft, _("drain: the job in flight goes on")))
        parts.append(axis.part("interrupt", soft, drained, _("interruption")))
    else:
        took = seconds_text(max(0.0, (drained - asked).total_seconds()))
        parts.append(axis.part("drain", asked, drained, _("drain, %(seconds)s") % {"seconds": took}))
    start = drained
    if member.drained_at is not None and not hooks and member.seconds.hooks:
        hooks = [HookRun(member.id, _("exit hooks"), HookOutcome.OK, member.seconds.hooks)]
    for number, run in enumerate(hooks):
        stop = shifted(start, max(0.0, run.seconds))
        bad = run.outcome in WENT_WRONG
        kind = "hook-bad" if bad else "hook" if number % 2 == 0 else "hook-2"
        title = _("hook %(name)s, %(seconds)s") % {
            "name": short_name(run.name, NAME_LENGTH),
            "seconds": seconds_text(run.seconds),
        }
        parts.append(axis.part(kind, start, stop, title))
        start = stop
    if member.drained_at is not None and not member.living and start < end:
        parts.append(axis.part("rest", start, end, _("report and exit")))
    return parts


def _soft_limit(member: Member, asked: datetime) -> datetime | None:
    grace = member.grace
    if grace.period is None:
        return None
    return shifted(asked, max(0.0, grace.period - (grace.hooks or 0.0) - (grace.interrupt or 0.0)))


def _groups(members: Sequence[Member]) -> list[tuple[str, list[Member]]]:
    """Workers by host where these are few, else by the order of their requests."""
    by_host: dict[str, list[Member]] = {}
    for each in members:
        by_host.setdefault(each.hostname, []).append(each)
    if len(by_host) <= SINGLE_BARS:
        return [(short_name(host, NAME_LENGTH), group) for host, group in by_host.items()]
    size = math.ceil(len(members) / GROUPS)
    return [
        (
            _("workers %(first)d to %(last)d") % {"first": start + 1, "last": min(start + size, len(members))},
            list(members[start : start + size]),
        )
        for start in range(0, len(members), size)
    ]


def _group_row(label: str, group: Sequence[Member], axis: Axis) -> Row:
    """The first request, the median and the slowest of a group."""
    first = min(each.happened_at for each in group)
    asked = sorted(each.happened_at for each in group)
    ends = sorted(each.ended_at or each.happened_at for each in group)
    drained = sorted(each.drained_at or each.ended_at or each.happened_at for each in group)
    middle = len(group) // 2
    parts = [
        axis.part("work", axis.first, asked[middle], _("takes jobs")),
        axis.part("spread", first, ends[-1], _("from the first request to the last end")),
        axis.part("drain", asked[middle], drained[middle], _("median drain")),
    ]
    if drained[middle] < ends[middle]:
        parts.append(axis.part("hook", drained[middle], ends[middle], _("median of hooks and report")))
    bad = sum(each.outcome in GRAVE for each in group)
    interrupted = sum(each.outcome == Outcome.INTERRUPTED for each in group)
    state = "failed" if bad else "interrupted" if interrupted else "clean"
    if bad or interrupted:
        words = _("%(count)d of %(all)d not clean") % {"count": bad + interrupted, "all": len(group)}
    else:
        words = ngettext("%(count)d clean", "%(count)d clean", len(group)) % {"count": len(group)}
    totals = [each.seconds.total for each in group if each.seconds.total is not None]
    seconds = (
        _("%(median)s, at most %(most)s") % {"median": seconds_text(median(totals)), "most": seconds_text(max(totals))}
        if totals
        else "-"
    )
    return Row(label, label, "", state, words, seconds, tuple(parts))


def _starts(deploy: Deploy, axis: Axis) -> tuple[Row, ...]:
    last = shifted(axis.first, axis.seconds)
    shown = [start for start in deploy.material.starts if axis.first <= start.at <= last]
    if len(shown) <= MOST_STARTS:
        return tuple(_start_row([start], axis, last) for start in shown)
    size = math.ceil(len(shown) / MOST_STARTS)
    return tuple(_start_row(shown[first : first + size], axis, last) for first in range(0, len(shown), size))


def _start_row(starts: Sequence[Start], axis: Axis, last: datetime) -> Row:
    first, release = starts[0], one_line(starts[0].release)
    label = short_name(first.worker, NAME_LENGTH)
    if len(starts) > 1:
        label = ngettext("%(count)d worker", "%(count)d workers", len(starts)) % {"count": len(starts)}
    words = _("started") if not release else _("%(release)s started") % {"release": release[:NAME_LENGTH]}
    parts = (axis.part("new", starts[len(starts) // 2].at, last, _("takes jobs")),)
    after = f"{(first.at - axis.first).total_seconds():.1f} s"
    return Row(label, one_line(first.worker), "", "started", words, after, parts)


def _ticks(axis: Axis) -> tuple[Tick, ...]:
    step = next((each for each in STEPS if axis.seconds / each <= TICKS), axis.seconds / TICKS)
    count = int(axis.seconds / step)
    return tuple(
        Tick(f"{100 * number * step / axis.seconds:.2f}%", seconds_text(number * step) if number else "0")
        for number in range(count + 1)
    )


def _blocks(deploy: Deploy, axis: Axis) -> tuple[Block, ...]:
    """The capacity as steps; of many, those that make a difference to be seen."""
    capacity = deploy.capacity
    if capacity is None:
        return ()
    steps = capacity.steps
    if len(steps) > MOST_STEPS:
        kept = steps[:: math.ceil(len(steps) / MOST_STEPS)]
        steps = (*kept, steps[-1])
    most = max(1, *(count for _at, count in steps))
    last = shifted(axis.first, axis.seconds)
    starts = [axis.first, *(at for at, _count in steps[1:])]
    blocks = []
    for start, end, (_at, count) in zip(starts, [*starts[1:], last], steps, strict=True):
        left, right = axis.at(start), axis.at(end)
        height = 100 * max(0, count) / most
        if right > left:
            blocks.append(Block(f"{left:.2f}%", f"{right - left:.2f}%", f"{100 - height:.1f}%", f"{height:.1f}%"))
    return tuple(blocks)
