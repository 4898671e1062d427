"""What a deploy consists of, as frozen records: the workers that ended, those that live, and their jobs and hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum

from graceful.core.phases import JobOutcome
from graceful.core.records import Grace, Spans


class Verdict(IntEnum):
    """How a deploy went; the value is the exit code of ``wait_for_deploy``."""

    CLEAN = 0
    """Every worker ended cleanly."""
    STALE = 1
    """Workers of an earlier release still run, or the new release has too few."""
    FAILED = 70
    """A hook failed, or a worker was forced, crashed or killed."""
    INTERRUPTED = 75
    """Jobs were interrupted, and nothing worse happened."""


@dataclass(frozen=True, slots=True)
class Running:
    """The job that a living worker has in flight.

    Args:
        function: dotted name of its function; empty until its process has unpickled the job.
        queue: the queue that it was taken from.
        progress_done: how far its ``resumable`` loop is, None if it has none.
    """

    id: str
    function: str = ""
    queue: str = ""
    started_at: datetime | None = None
    progress_done: int | None = None
    progress_total: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One worker: as its report shows it, or, if it lives, its journal entry and heartbeat.

    Args:
        id: of its report.
        outcome: None for a worker that lives.
        silent: whether it lives as far as is known, but its heartbeat is overdue.
        quiet: whether it lives, and takes no new job though nobody has asked it to stop.
        job: its job in flight, if it lives.
    """

    id: str
    worker: str
    hostname: str
    release: str
    started_at: datetime
    reason: str | None = None
    signal: str | None = None
    outcome: str | None = None
    phase: str = "running"
    requested_at: datetime | None = None
    drained_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: Spans = field(default_factory=Spans)
    grace: Grace = field(default_factory=Grace)
    living: bool = False
    silent: bool = False
    quiet: bool = False
    job: Running | None = None

    @property
    def stopping(self) -> bool:
        """Whether it lives and its shutdown was requested."""
        return self.living and self.requested_at is not None

    @property
    def happened_at(self) -> datetime:
        return self.requested_at or self.ended_at or self.started_at


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a worker of another release."""

    worker: str
    release: str
    at: datetime


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A job that was in flight at a shutdown of the deploy, and where it went.

    Args:
        stopped_at: when its worker had no job any more, None if unknown.
        now: its status in Redis, empty where it is unknown or was not asked for.
        again_at: when it was started again.
    """

    report: str
    worker: str
    id: str
    function: str
    queue: str
    outcome: str
    seconds: float | None = None
    interruptions: int = 0
    stack: str = ""
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    progress_done: int | None = None
    progress_total: int | None = None
    again_at: datetime | None = None
    again_worker: str = ""
    again_release: str = ""
    again_outcome: str = ""
    again_ended_at: datetime | None = None
    now: str = ""

    @property
    def failed(self) -> bool:
        """Whether it failed for its interruption, and nobody has requeued it since."""
        return self.again_at is None and (self.outcome == JobOutcome.INTERRUPTION_FAILED or self.now == "failed")

    @property
    def canceled(self) -> bool:
        """Whether somebody had cancelled or deleted it, so that it was not requeued."""
        return self.again_at is None and self.outcome == JobOutcome.CANCELED

    @property
    def waited(self) -> float | None:
        """Seconds from its interruption to its next start."""
        if self.again_at is None or self.stopped_at is None:
            return None
        return max(0.0, (self.again_at - self.stopped_at).total_seconds())

    @property
    def repeated(self) -> float | None:
        """Seconds of work that its next run repeats; 0 where a loop goes on at its cursor, None if unknown or none."""
        if self.failed or self.canceled:
            return None
        if self.progress_done is not None:
            return 0.0
        if self.started_at is None or self.stopped_at is None:
            return None
        return max(0.0, (self.stopped_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class HookRun:
    """One exit hook of one worker, for the picture."""

    report: str
    name: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HookTotal:
    """All runs of one exit hook in the deploy."""

    name: str
    runs: int
    failed: int
    timed_out: int
    skipped: int
    seconds: float
    slowest: float

    @property
    def mean(self) -> float:
        return self.seconds / max(1, self.runs - self.skipped)


@dataclass(frozen=True, slots=True)
class Material:
    """What was read for one deploy.

    Args:
        release: the release whose shutdowns these are; empty if workers have none.
        next_release: the release after it, empty if there is none.
        ended: shutdowns that are part of the deploy.
        apart: how many shutdowns ended meanwhile for another reason (burst, idle, ...), by reason.
        living: every living worker, of every release.
        living_known: whether every Redis server was reached.
        starts: starts of other releases' workers.
        jobs: how many jobs were in flight, by outcome.
        interrupted: those that the shutdowns did not let finish, at most some hundred.
        longest: those that took longest to end.
        more: whether there are more shutdowns than were read.
        known: releases and their first start.
    """

    release: str
    now: datetime
    ended: tuple[Member, ...] = ()
    apart: Mapping[str, int] = field(default_factory=dict)
    living: tuple[Member, ...] = ()
    living_known: bool = True
    next_release: str = ""
    starts: tuple[Start, ...] = ()
    jobs: Mapping[str, int] = field(default_factory=dict)
    interrupted: tuple[JobEnd, ...] = ()
    longest: tuple[JobEnd, ...] = ()
    hooks: tuple[HookTotal, ...] = ()
    runs: tuple[HookRun, ...] = ()
    more: bool = False
    known: Mapping[str, datetime] = field(default_factory=dict)

    def with_jobs(self, interrupted: tuple[JobEnd, ...]) -> Material:
        """With more knowledge of where the interrupted jobs went."""
        return replace(self, interrupted=interrupted)


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed during its shutdown.

    Args:
        seconds: from the request to its last sign of life: the grace period of the platform is hardly longer.
    """

    worker: str
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Headroom:
    """What the shutdowns took of what they were allowed, in seconds; None where nothing is known."""

    period: float | None = None
    drain_allowed: float | None = None
    drain_p95: float | None = None
    drain_most: float | None = None
    hooks_allowed: float | None = None
    hooks_most: float | None = None
    total_most: float | None = None
    kills: tuple[Kill, ...] = ()

    @property
    def real_period(self) -> float | None:
        """The platform's grace period, as far as kills show it."""
        seconds = sorted(kill.seconds for kill in self.kills)
        return seconds[len(seconds) // 2] if seconds else None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many workers took jobs.

    Args:
        before: when the first shutdown was requested.
        lowest: the fewest.
        seconds_below: how long there were fewer than before.
        steps: each change: when, and how many from then on.
    """

    before: int
    lowest: int
    seconds_below: float
    steps: tuple[tuple[datetime, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Deploy:
    """A deploy: the shutdowns of one release, or those close in time, and the starts of the next.

    Args:
        began_at: when the first shutdown was requested; None if there was none.
        ended_at: when the last worker was gone; None if there was none or it still goes on.
        under_way: whether it still goes on.
        members: its workers: those that ended and those that are stopping, in the order of their requests.
        outcomes: how many workers ended how.
        waiting: living workers of the release whose shutdown nobody has requested.
        stale: living workers of an earlier release than the newest that runs.
        newest: the newest release that runs; None if no worker does.
        running: living workers by release.
        interrupted: how many jobs the shutdowns did not let finish.
        again: how many of them ran again, the last of these after ``again_seconds``.
        failed: how many of them failed for it and were not requeued.
        canceled: how many of them had been cancelled or deleted.
    """

    material: Material
    verdict: Verdict
    under_way: bool
    began_at: datetime | None
    ended_at: datetime | None
    members: tuple[Member, ...]
    outcomes: Mapping[str, int]
    waiting: tuple[Member, ...]
    stale: tuple[Member, ...]
    newest: str | None
    running: Mapping[str, int]
    slowest: Member | None
    headroom: Headroom
    capacity: Capacity | None
    interrupted: int
    again: int
    again_seconds: float | None
    failed: int
    canceled: int
    stacks: tuple[tuple[str, int], ...]

    @property
    def release(self) -> str:
        return self.material.release

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())
