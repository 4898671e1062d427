"""What the page of a deploy shows, line by line: texts that are ready for the template."""

from __future__ import annotations

from dataclasses import dataclass

from graceful.reports.deploys.shapes import Picture


@dataclass(frozen=True, slots=True)
class JobLine:
    """An interrupted job, or one that took long."""

    id: str
    url: str
    function: str
    queue: str
    worker: str
    report: str
    outcome: str
    words: str
    seconds: str
    where: str
    repeated: str


@dataclass(frozen=True, slots=True)
class HookLine:
    """All runs of one hook."""

    name: str
    runs: int
    bad: str
    mean: str
    slowest: str


@dataclass(frozen=True, slots=True)
class LivingLine:
    """One living worker.

    Args:
        report: its report's id.
        tell: what it can be told, ``"quiet"`` or ``"resume"``; empty where neither would be heard or of use.
    """

    report: str
    tell: str
    worker: str
    host: str
    release: str
    state: str
    words: str
    job: str
    job_url: str
    progress: str
    left: str


@dataclass(frozen=True, slots=True)
class ReleaseLine:
    """One release and its state."""

    label: str
    url: str
    state: str
    words: str
    started: str
    workers: str
    last: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the headroom: what was taken of what is allowed."""

    label: str
    taken: str
    allowed: str
    share: str
    over: bool


@dataclass(frozen=True, slots=True)
class DeployPage:
    """Everything that the page of a deploy shows."""

    title: str
    badge: str
    verdict: str
    headline: str
    when: str
    notices: tuple[str, ...]
    under_way: bool
    picture: Picture | None
    capacity: str
    apart: str
    measures: tuple[Measure, ...]
    advice: tuple[str, ...]
    interrupted: tuple[JobLine, ...]
    interrupted_more: str
    longest: tuple[JobLine, ...]
    hooks: tuple[HookLine, ...]
    stacks: tuple[tuple[str, str], ...]
    living: tuple[LivingLine, ...]
    living_more: str
    stale: int
    releases: tuple[ReleaseLine, ...]
