"""The projection of a deploy: pure, never failing, and right in its sums."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import Grace, ShutdownReport, Spans
from graceful.reports.deploys import plain
from graceful.reports.deploys.page import deploy_page
from graceful.reports.deploys.picture import picture
from graceful.reports.deploys.projection import close_in_time, deploy_of, stale_workers
from graceful.reports.deploys.records import HookRun, HookTotal, JobEnd, Material, Member, Start, Verdict
from graceful.reports.deploys.words import headline, where_it_went
from tests.db.samples import reports

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def ended(number: int, asked: float = 0.0, took: float = 2.0, **changes: Any) -> Member:
    member = Member(
        id=f"r{number}",
        worker=f"w{number}",
        hostname="h",
        release="1",
        started_at=after(-3600),
        reason=Reason.SIGNAL,
        signal="SIGTERM",
        outcome=Outcome.CLEAN,
        phase="sealed",
        requested_at=after(asked),
        drained_at=after(asked + took / 2),
        ended_at=after(asked + took),
        seconds=Spans(took / 2, took / 4, took),
        grace=Grace(25.0, 5.0, 3.0),
    )
    return replace(member, **changes)


def alive(number: int, release: str = "2", started: float = 1.0, **changes: Any) -> Member:
    return replace(Member(f"l{number}", f"new{number}", "h", release, after(started), living=True), **changes)


def material(*members: Member, **changes: Any) -> Material:
    return replace(Material("1", after(60), tuple(members)), **changes)


def as_member(report: ShutdownReport, living: bool) -> Member:
    return Member(
        id=report.id,
        worker=report.worker,
        hostname=report.hostname,
        release=report.release,
        started_at=report.started_at,
        reason=report.reason,
        signal=report.signal,
        outcome=None if living else report.outcome,
        phase=report.phase,
        requested_at=report.requested_at,
        drained_at=report.drained_at,
        ended_at=report.ended_at,
        seconds=report.seconds,
        grace=report.grace,
        living=living,
    )


def jobs_of(some: Iterable[ShutdownReport]) -> list[JobEnd]:
    return [
        JobEnd(
            report.id,
            report.worker,
            job.id,
            job.function,
            job.queue,
            job.outcome,
            job.seconds,
            job.interruptions,
            job.stack,
            job.started_at,
            report.drained_at,
            job.progress_done,
            job.progress_total,
            report.ended_at,
        )
        for report in some
        for job in report.jobs.in_flight
    ]


@given(st.lists(reports(), max_size=6), st.lists(reports(), max_size=4), st.lists(reports(), max_size=4))
def test_any_reports_make_a_deploy(
    gone: list[ShutdownReport], there: list[ShutdownReport], next_ones: list[ShutdownReport]
) -> None:
    """Whatever reports say, there is a deploy, its page and its JSON; and its counts add up."""
    jobs = jobs_of(gone)
    given_material = Material(
        release=there[0].release if there else "",
        now=NOON,
        ended=tuple(as_member(each, living=False) for each in gone),
        living=tuple(as_member(each, living=True) for each in there),
        starts=tuple(Start(each.worker, each.release, each.started_at) for each in next_ones),
        jobs=Counter(job.outcome for job in jobs),
        interrupted=tuple(jobs),
        longest=tuple(jobs),
        hooks=tuple(
            HookTotal(hook.name, 1, 0, 0, 0, hook.seconds, hook.seconds) for each in gone for hook in each.hooks
        ),
        runs=tuple(HookRun(each.id, hook.name, hook.outcome, hook.seconds) for each in gone for hook in each.hooks),
        known={each.release: each.started_at for each in gone},
    )
    deploy = deploy_of(given_material)
    assert deploy.ended == len(gone)
    assert sum(deploy.running.values()) == len(there)
    assert len(deploy.members) == deploy.ended + sum(each.stopping for each in deploy.members)
    assert {each.id for each in deploy.stale} <= {each.id for each in given_material.living}
    page = deploy_page(deploy, [], lambda job, queue: "", lambda label: "")
    assert page.headline.isprintable()
    for row in page.picture.rows if page.picture else ():
        for part in row.parts:
            assert 0 <= float(part.x[:-1]) <= 100
            assert 0 < float(part.width[:-1]) <= 100
    json.loads(json.dumps(plain.deploy(deploy), allow_nan=False))


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([Outcome.CLEAN, Outcome.CLEAN], Verdict.CLEAN),
        ([Outcome.CLEAN, Outcome.INTERRUPTED], Verdict.INTERRUPTED),
        *(
            ([Outcome.INTERRUPTED, bad], Verdict.FAILED)
            for bad in (Outcome.HOOKS_FAILED, Outcome.FORCED, Outcome.CRASHED, Outcome.KILLED)
        ),
    ],
)
def test_the_gravest_outcome_is_the_verdict(outcomes: list[Outcome], verdict: Verdict) -> None:
    """One bad shutdown makes the deploy bad, one interrupted job makes it interrupted."""
    members = [ended(number, outcome=outcome) for number, outcome in enumerate(outcomes)]
    assert deploy_of(material(*members)).verdict is verdict


def test_the_verdict_in_a_sentence() -> None:
    """The sentence says how many were clean, what became of the jobs, and how near the deadline was."""
    job = JobEnd(
        "r0", "w0", "j", "f", "q", JobOutcome.INTERRUPTED, stopped_at=after(20), again_at=after(34), started_at=NOON
    )
    both = replace(job, id="k", again_at=after(22))
    members = [ended(number) for number in range(38)]
    members += [ended(number, took=21.3, outcome=Outcome.INTERRUPTED) for number in (38, 39)]
    said = headline(
        deploy_of(material(*members, jobs={JobOutcome.INTERRUPTED: 2}, interrupted=(job, both), release="2026.11.24-3"))
    )
    assert said == (
        "Release 2026.11.24-3: 38 of 40 workers ended cleanly. 2 jobs were interrupted, and all ran again within "
        "14.00 s. The slowest took 21.30 s of 25.00 s."
    )


def test_jobs_that_were_not_requeued_are_told_of() -> None:
    """A job that failed for its interruption or had been cancelled is named, and nobody waits for it to run again."""
    lost = JobEnd("r0", "w0", "a", "f", "q", JobOutcome.INTERRUPTION_FAILED, stopped_at=after(20), started_at=NOON)
    cut_off = replace(lost, id="b", outcome=JobOutcome.INTERRUPTED)
    failed = replace(cut_off, id="c", now="failed")
    canceled = replace(lost, id="d", outcome=JobOutcome.CANCELED)
    again = replace(cut_off, id="e", again_at=after(34))

    def told(*jobs: JobEnd) -> str:
        some = material(ended(0), jobs=Counter(job.outcome for job in jobs), interrupted=jobs)
        return headline(deploy_of(some)).partition("ended cleanly. ")[2].partition(" The slowest")[0]

    failed_words = "1 job failed for its interruption, and was not requeued."
    assert told(lost) == f"1 job was interrupted. {failed_words}"
    assert told(failed, again) == f"2 jobs were interrupted; 1 ran again. {failed_words}"
    assert told(cut_off, again) == "2 jobs were interrupted; 1 ran again so far."
    canceled_words = "1 job had been cancelled or deleted, and was not requeued."
    assert told(lost, failed, canceled, again) == (
        "4 jobs were interrupted; 1 ran again. 2 jobs failed for their interruption, and were not requeued. "
        + canceled_words
    )
    # Requeued by hand since.
    assert told(replace(lost, again_at=after(90))) == "1 job was interrupted, and ran again within 70.00 s."
    assert where_it_went(failed) == where_it_went(lost) == "failed, and was not requeued"
    deploy = plain.deploy(deploy_of(material(ended(0), interrupted=(lost, failed, canceled, again))))
    assert [job["repeated_seconds"] for job in deploy["interrupted_jobs"]] == [None, None, None, 20.0]
    assert deploy["jobs"]["not_requeued"] == 3


def test_capacity_counts_a_restarted_worker_from_its_start() -> None:
    """A worker of the same release that was started while others ended did not take jobs before."""
    again = ended(2, 20, started_at=after(10))
    capacity = deploy_of(material(ended(1, 0), again, starts=(Start("new", "2", after(21)),))).capacity
    assert capacity is not None
    assert (capacity.before, capacity.lowest) == (1, 0)
    assert [number for _at, number in capacity.steps] == [1, 0, 1, 0, 1]


def test_capacity_counts_who_takes_jobs() -> None:
    """Old workers count until they are asked to stop, new ones from their start."""
    starts = (Start("n1", "2", after(3)), Start("n2", "2", after(6)))
    capacity = deploy_of(material(ended(1, 0), ended(2, 4), starts=starts)).capacity
    assert capacity is not None
    assert (capacity.before, capacity.lowest) == (2, 1)
    # From 0 to 3, and from 4 to 6.
    assert capacity.seconds_below == pytest.approx(5.0)


def test_kills_teach_the_real_grace_period() -> None:
    """Where workers were killed during their shutdown, the platform's grace period is about what they had."""
    killed = [
        ended(number, outcome=Outcome.KILLED, reason=Reason.KILLED, ended_at=after(seconds), phase="draining")
        for number, seconds in enumerate((9.0, 10.0, 10.2))
    ]
    # One that was found dead long after its own deadline says nothing.
    killed.append(ended(9, outcome=Outcome.KILLED, ended_at=after(90)))
    room = deploy_of(material(*killed)).headroom
    assert room.real_period == pytest.approx(10.0)
    assert [kill.phase for kill in room.kills] == ["draining"] * 3


def test_who_is_stale() -> None:
    """Workers of every release that began before the newest; after a rollback that is the label that is older."""
    known = {"1": after(-100), "2": after(0)}
    living = (alive(1, "1", -90), alive(2, "2", 1), alive(3, "2", 2))
    assert stale_workers(living, known) == ("2", living[:1])
    rollback = (alive(1, "2", 1), alive(2, "1", 50))
    assert stale_workers(rollback, known) == ("1", rollback[:1])
    assert stale_workers(rollback, known, target="1")[1] == rollback[:1]
    # Nobody of the release has come yet: all others are to go, but for those of a later one.
    assert stale_workers(living, {**known, "3": after(9)}, target="3")[1] == living
    assert stale_workers(living, {**known, "0": after(-500)}, target="0")[1] == ()
    # A replica of the old release that was started late.
    late = (*living[1:], alive(4, "1", 30))
    assert stale_workers(late, known, target="2")[1] == late[2:]


def test_it_is_under_way_until_the_last_is_gone() -> None:
    """A worker that is stopping, or one that nobody has asked yet, keeps the page alive; then it ends."""
    stopping = alive(7, "1", -50, requested_at=after(2), phase="draining")
    assert deploy_of(material(ended(1), living=(stopping, alive(8)))).under_way
    waiting = alive(7, "1", -50)
    assert deploy_of(material(ended(1), living=(waiting, alive(8)))).waiting == (waiting,)
    assert deploy_of(material(ended(1), living=(waiting, alive(8)))).under_way
    assert not deploy_of(material(ended(1), living=(alive(8),))).under_way
    # A report that is archived while its worker is still listed counts once.
    both = deploy_of(material(ended(1), living=(replace(stopping, id="r1"),)))
    assert len(both.members) == 1


def test_close_in_time() -> None:
    """The run around one moment ends where the gap is too long."""
    moments = [after(seconds) for seconds in (0, 5, 100, 104, 109, 300)]
    assert close_in_time(moments, 3, 10) == (2, 5)
    assert close_in_time(moments, 0, 10) == (0, 2)


def test_many_workers_are_grouped_and_a_long_deploy_is_aligned() -> None:
    """Above sixty workers bars are groups; of a deploy of an hour each bar begins at its own request."""
    many = picture(deploy_of(material(*(ended(number, number * 0.01, hostname=f"h{number}") for number in range(300)))))
    assert many is not None
    assert many.grouped
    assert len(many.rows) <= 60
    slow = picture(deploy_of(material(ended(1), ended(2, 3600))))
    assert slow is not None
    assert slow.aligned
    assert slow.rows[0].parts[-1].x == slow.rows[1].parts[-1].x


def test_a_bar_shows_every_part() -> None:
    """Drain, interruption, each hook by its outcome, report; the deadline is a line."""
    runs = (HookRun("r1", "a", HookOutcome.OK, 1.0), HookRun("r1", "b", HookOutcome.TIMED_OUT, 2.0))
    member = ended(1, took=26.0, drained_at=after(19), ended_at=after(26))
    drawn = picture(deploy_of(material(member, runs=runs)))
    assert drawn is not None
    (row,) = drawn.rows
    assert [part.kind for part in row.parts] == ["work", "drain", "interrupt", "hook", "hook-bad", "rest"]
    assert row.deadline
