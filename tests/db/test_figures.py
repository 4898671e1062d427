"""The figures that advice stands on, read from stored reports and roll-ups."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.post_mortem import GRACE_OVER
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, ShutdownReport, Spans
from graceful.models import ReportedJob
from graceful.reports.advice import advice_for
from graceful.reports.figures import FunctionCost, HookRuns, Need, figures
from graceful.reports.rollup import roll_up
from tests.db.samples import a_clean_report
from tests.db.stored import save

pytestmark = pytest.mark.django_db

MONTH = timedelta(days=30)


def a_shutdown(*jobs: InFlightJob, drain: float = 1.0, ago: float = 1.0, **changes: Any) -> ShutdownReport:
    """One that was requested ``ago`` hours ago, with these jobs in flight."""
    at = datetime.now(UTC) - timedelta(hours=ago)
    jobs = tuple(job._replace(started_at=at - timedelta(seconds=30)) for job in jobs)
    return a_clean_report(
        requested_at=at,
        seconds=Spans(drain, 0.5, drain + 0.5),
        jobs=JobTally(3, 0, jobs),
        **changes,
    )


def a_job(outcome: JobOutcome = JobOutcome.INTERRUPTED, seconds: float = 17.0, **changes: Any) -> InFlightJob:
    return InFlightJob("job", "shop.f", "default", outcome, seconds, 1, **changes)


def test_nothing_is_known_of_nothing() -> None:
    """Without reports there is no figure but the settings, and no advice."""
    found = figures(MONTH)
    assert (found.shutdowns, found.needs, found.jobs) == (0, (), 0)
    assert found.grace == Grace(25.0, 5.0, 3.0)
    assert advice_for() == ()


def test_the_newest_shutdowns_that_somebody_asked_for() -> None:
    """Those of a signal or a command within the period, each with what it would have had to wait for."""
    save(
        a_shutdown(drain=2.0, ago=1),
        a_shutdown(a_job(JobOutcome.FINISHED, 4.0), drain=4.0, ago=2, reason=Reason.COMMAND),
        a_shutdown(a_job(), a_job(JobOutcome.RETURNED), drain=17.5, ago=3),
        a_shutdown(drain=99.0, ago=4, reason=Reason.BURST),
        a_shutdown(drain=99.0, ago=24 * 31),
    )
    found = figures(MONTH)
    assert found.shutdowns == 3
    assert found.needs == (Need(2.0), Need(4.0), Need(17.5, at_least=True))
    assert found.hooks == (0.5, 0.5, 0.5)
    # A job that went back unstarted was not cut off.
    assert (found.jobs, found.interrupted) == (2, 1)
    assert found.functions == (FunctionCost("shop.f", 1, 47.0),)
    assert found.since is not None
    assert found.until is not None
    assert found.since < found.until


def test_only_the_grace_period_that_is_in_use() -> None:
    """Shutdowns with another grace period say nothing of this one."""
    long = Grace(120.0, 10.0, 5.0)
    save(
        *(a_shutdown(a_job(), ago=1 + number, grace=long) for number in range(3)),
        *(a_shutdown(a_job(), a_job(), ago=1.5 + number) for number in range(2)),
    )
    found = figures(MONTH)
    assert (found.grace, found.shutdowns, found.jobs) == (long, 3, 3)


def test_reports_that_do_not_say_their_grace_period() -> None:
    """Those of an earlier version are judged by the settings."""
    save(a_shutdown(a_job(), grace=Grace()))
    with override_settings(GRACEFUL_TIMEOUT=60):
        found = figures(MONTH)
    assert (found.shutdowns, found.jobs, found.grace) == (1, 1, Grace(60.0, 5.0, 3.0))


@pytest.mark.parametrize(
    ("job", "again", "need"),
    [
        # 30 s before the signal and 17 s after: 47 s of 80 s.
        (a_job(), (80.0, "finished"), Need(50.0)),
        (a_job(), (80.0, "interrupted"), Need(17.0, at_least=True)),
        (a_job(), (None, ""), Need(17.0, at_least=True)),
        # It went on where it was.
        (a_job(progress_done=10, progress_total=40), (80.0, "finished"), Need(97.0)),
        # A quarter in 47 s.
        (a_job(progress_done=10, progress_total=40), (None, ""), Need(158.0)),
        (a_job(progress_done=10), (None, ""), Need(17.0, at_least=True)),
        (a_job(progress_done=10, progress_total=40)._replace(interruptions=2), (None, ""), Need(17.0, at_least=True)),
    ],
)
def test_what_a_job_would_have_needed(job: InFlightJob, again: tuple[float | None, str], need: Need) -> None:
    """Its second run tells, or else its progress; otherwise what it had until it was cut off is a lower bound."""
    save(a_shutdown(job, drain=17.0))
    seconds, outcome = again
    if seconds is not None:
        start = datetime.now(UTC)
        ReportedJob.objects.update(
            again_at=start, again_ended_at=start + timedelta(seconds=seconds), again_outcome=outcome
        )
    (found,) = figures(MONTH).needs
    assert found.at_least == need.at_least
    assert found.seconds == pytest.approx(need.seconds, abs=0.01)


def test_a_job_with_progress_gains_nothing_from_resumable() -> None:
    """Jobs that keep their progress are not named; the others are, the most interrupted first."""
    others = [a_job(JobOutcome.KILLED)._replace(function=f"shop.{name}") for name in ("a", "b", "b")]
    save(a_shutdown(a_job(progress_done=3), *others))
    assert [(each.function, each.interrupted) for each in figures(MONTH).functions] == [("shop.b", 2), ("shop.a", 1)]


def test_workers_that_the_platform_killed() -> None:
    """Counted where the reaper says so; other deaths are not the platform's."""
    killed: dict[str, Any] = {"reason": Reason.KILLED, "outcome": Outcome.KILLED, "exit_code": None}
    save(
        a_shutdown(notes=f"last heartbeat x; {GRACE_OVER}; closed by worker w", **killed),
        a_shutdown(notes="probably out of memory", **killed),
    )
    assert figures(MONTH).grace_over == 1
    assert [each.about for each in advice_for()] == ["killed"]


def test_hooks_that_timed_out() -> None:
    """From the roll-ups of the period: how often, after how long, and how long the successful runs took."""
    runs = [HookResult("slow", HookOutcome.OK, 0.7, 2.0)] * 3 + [HookResult("slow", HookOutcome.TIMED_OUT, 2.0, 2.0)]
    save(
        a_shutdown(hooks=(*runs, HookResult("fine", HookOutcome.OK, 9.0, 2.0))),
        a_shutdown(hooks=runs[3:], ago=24 * 40),
    )
    roll_up(60)
    save(
        a_shutdown(hooks=(HookResult("near", HookOutcome.OK, 1.1, 1.2), HookResult("near", HookOutcome.TIMED_OUT, 1.2)))
    )
    roll_up(60)
    near, found = figures(MONTH).hook_runs
    assert near.p95 == pytest.approx(1.2)  # The bucket ends at 2.5 s.
    assert replace(found, p95=None) == HookRuns("slow", 4, 1, 2.0, None)
    assert found.p95 == pytest.approx(0.975)


def test_advice_from_stored_reports() -> None:
    """From reports to the sentence, in a fixed number of queries."""
    with override_settings(TIME_ZONE="UTC"):
        save(*(a_shutdown(a_job(JobOutcome.FINISHED, 2.0), drain=2.0, ago=number + 1) for number in range(30)))
        save(*(a_shutdown(a_job(JobOutcome.KILLED, 20.0), drain=20.0, ago=number + 40) for number in range(3)))
        with CaptureQueriesContext(connection) as queries:
            grace, jobs = advice_for()
    assert "Drain p99 is at least 20 s, hooks p99 0.5 s: with a GRACEFUL_TIMEOUT of 25 s, 9.1 % of" in grace.text
    assert "At least 28 s would have been needed to interrupt none: in 3 shutdowns nothing tells" in grace.text
    assert "shop.f (3 times, 150 s of work repeated)" in jobs.text
    assert grace.basis.startswith("From 33 shutdowns with this grace period, between ")
    assert len(queries) <= 8
