"""The gate of a pipeline: whether a deploy is over, and how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from graceful.core.text import one_line
from graceful.reports.deploys.projection import deploy_of, stale_workers, verdict_of
from graceful.reports.deploys.records import Deploy, Member, Verdict
from graceful.reports.deploys.rows import Living, known_releases, last_release_but, material_of_release
from graceful.reports.releases import note_living


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the living workers showed.

    Args:
        earlier: living workers of earlier releases.
        arrived: living workers of the release that take jobs.
        wanted: how many there have to be.
        known: whether every server was reached.
    """

    earlier: tuple[Member, ...]
    arrived: tuple[Member, ...]
    wanted: int
    known: bool

    @property
    def over(self) -> bool:
        return self.known and not self.earlier and len(self.arrived) >= self.wanted


@dataclass(slots=True)
class Gate:
    """Waits for one release.

    Args:
        release: its label.
        wanted: how many of its workers must be there.
    """

    release: str
    wanted: int
    replaced: set[str] = field(default_factory=set)
    """Earlier releases of which a worker lived at one of the looks."""

    def look(self, living: Living) -> Look:
        """Compare the living workers with what is wanted.

        Raises:
            django.db.DatabaseError: the database is unreachable.
        """
        known = known_releases()
        note_living(living.workers, known)
        _target, earlier = stale_workers(living.workers, known, self.release)
        self.replaced.update(each.release for each in earlier)
        arrived = [each for each in living.workers if each.release == self.release and not each.stopping]
        return Look(earlier, tuple(each for each in arrived if not each.silent), self.wanted, living.known)

    def deploys(self, living: Living, now: datetime) -> list[Deploy]:
        """The shutdowns of the releases that this one replaced.

        Raises:
            django.db.DatabaseError: the database is unreachable.
        """
        replaced = set(self.replaced)
        if not replaced:  # All was over before the first look.
            last = last_release_but(self.release)
            replaced = set() if last is None else {last}
        found = (material_of_release(label, living, now, after=self.release) for label in sorted(replaced))
        return [deploy_of(material) for material in found if material is not None]


def verdict(deploys: Iterable[Deploy], look: Look) -> Verdict:
    """The gravest of all; stale if it is not over."""
    if not look.over:
        return Verdict.STALE
    outcomes: Counter[str] = Counter()
    interrupted = 0
    for deploy in deploys:
        outcomes.update(deploy.outcomes)
        interrupted += deploy.interrupted
    return verdict_of(outcomes, interrupted)


def verdict_of_release(label: str, now: datetime) -> Verdict:
    """How the deploy went in which a release ended, by its reports alone.

    Raises:
        django.db.DatabaseError: the database is unreachable.
    """
    material = material_of_release(label, Living(known=False), now)
    return Verdict.CLEAN if material is None else deploy_of(material).verdict


def line(gate: Gate, look: Look) -> str:
    """The live line: what is still waited for."""
    parts = [f"{len(look.arrived)} of {look.wanted} workers of {one_line(gate.release)}"]
    if look.earlier:
        stopping = sum(each.stopping for each in look.earlier)
        parts.append(f"{len(look.earlier)} earlier, {stopping} of them stopping")
        parts += _jobs(look.earlier)
    else:
        parts.append("no earlier worker")
    if not look.known:
        parts.append("Redis is unreachable")
    return "; ".join(parts)


def _jobs(members: Sequence[Member], most: int = 1) -> list[str]:
    found = []
    for each in members:
        job = each.job
        if job is None or not each.stopping:
            continue
        progress = ""
        if job.progress_done is not None:
            progress = f" ({job.progress_done} of {job.progress_total or '?'})"
        found.append(f"in flight: {one_line(job.function or job.id)[:60]}{progress}")
    return found[:most]


def who_is_stale(look: Look, most: int = 20) -> list[str]:
    """A line for each worker of an earlier release."""
    lines = [
        f"{one_line(each.worker)} on {one_line(each.hostname)} runs {one_line(each.release) or 'no release'}, "
        + ("heartbeat overdue" if each.silent else str(each.phase))
        for each in look.earlier[:most]
    ]
    more = len(look.earlier) - most
    return lines if more <= 0 else [*lines, f"and {more} more"]
