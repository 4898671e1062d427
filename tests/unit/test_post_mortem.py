"""The report of a worker that was killed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from graceful.core.phases import JobOutcome, Outcome, Phase, Reason
from graceful.core.post_mortem import Findings, amended, closed
from graceful.core.records import InFlightJob, JobTally, ShutdownReport
from graceful.reports.text import report_text

START = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def a_report(**changes: object) -> ShutdownReport:
    fields: dict[str, object] = {
        "id": "r1",
        "worker": "w",
        "hostname": "h",
        "pid": 1,
        "queues": ("default",),
        "worker_class": "W",
        "started_at": START,
    }
    return ShutdownReport(**(fields | changes))  # type: ignore[arg-type]


def findings(**changes: object) -> Findings:
    fields: dict[str, object] = {
        "found_at": START + timedelta(minutes=2),
        "found_by": "next",
        "last_heartbeat": (START + timedelta(seconds=30)).timestamp(),
        "job": None,
        "oom_killed": False,
    }
    return Findings(**(fields | changes))  # type: ignore[arg-type]


def test_the_dead_are_reported_in_their_last_phase() -> None:
    """A killed worker's report keeps the last phase that it reached."""
    report = closed(a_report(phase=Phase.HOOKS, notes="running the exit hook flush"), findings())
    assert (report.reason, report.outcome, report.phase) == (Reason.KILLED, Outcome.KILLED, Phase.HOOKS)
    assert report.sealed
    assert report.exit_code is None
    assert "running the exit hook flush" in report.notes
    assert "last heartbeat 2026-03-01T12:00:30+00:00" in report.notes


def test_text_gives_no_end_that_nobody_saw() -> None:
    """What the text says of a killed worker is when it was last seen alive, or when it was found dead."""
    seen = report_text(closed(a_report(), findings()))
    found = report_text(closed(a_report(), findings(last_heartbeat=None)))
    assert re.search(r"^  last seen 2026-03-01 \S+  alive$", seen, re.MULTILINE)
    assert re.search(r"^  found     2026-03-01 \S+  dead$", found, re.MULTILINE)
    assert "\n  ended " not in seen + found


@pytest.mark.parametrize("seconds", [0.2, 29.9])
def test_nobody_ends_before_what_they_did(seconds: float) -> None:
    """The end is never before the start or the drained instant, though heartbeats are precise to the second only."""
    seen = START + timedelta(seconds=seconds)
    beat = findings(last_heartbeat=int(seen.timestamp()))
    report = closed(a_report(requested_at=seen, drained_at=seen), beat)
    assert report.ended_at is not None
    assert report.ended_at >= seen


@pytest.mark.parametrize(
    ("after", "oom", "words"),
    [(12.0, False, "grace period was over"), (12.0, True, "out of memory"), (2.0, False, ""), (None, False, "")],
)
def test_the_likely_cause(after: float | None, oom: bool, words: str) -> None:
    """The notes name the likely cause: OOM killer, grace period over, or none."""
    requested = None if after is None else START + timedelta(seconds=30 - after)
    report = closed(a_report(phase=Phase.DRAINING, requested_at=requested), findings(oom_killed=oom))
    assert ("probably" in report.notes) == bool(words)
    assert words in report.notes


def test_the_job_it_held_stands_in_the_report_once() -> None:
    """A job that was running and was requeued is listed once, with its later outcome."""
    running = InFlightJob("j1", "f", "default")
    other = InFlightJob("j2", "f", "default")
    job = InFlightJob("j1", "f", "default", JobOutcome.KILLED, interruptions=1)
    report = closed(a_report(jobs=JobTally(in_flight=(running, other))), findings(job=job))
    assert [(each.id, each.outcome) for each in report.jobs.in_flight] == [
        ("j1", JobOutcome.KILLED),
        ("j2", JobOutcome.UNKNOWN),
    ]


def test_sealed_report_learns_what_became_of_its_job() -> None:
    """A sealed report gets the outcome of a job that outlived its worker."""
    mine = InFlightJob("mine", "f", "default", JobOutcome.UNKNOWN, seconds=2.0, stack="here")
    other = InFlightJob("other", "f", "default", JobOutcome.FINISHED)
    report = a_report(outcome=Outcome.FORCED, phase=Phase.SEALED, jobs=JobTally(3, 1, in_flight=(other, mine)))
    found = InFlightJob("mine", "f", "default", JobOutcome.KILLED, interruptions=2)
    changed = amended(report, found)
    assert changed.jobs.in_flight == (
        other,
        InFlightJob("mine", "f", "default", JobOutcome.KILLED, seconds=2.0, interruptions=2, stack="here"),
    )
    assert (changed.outcome, changed.phase, changed.jobs.finished) == (Outcome.FORCED, Phase.SEALED, 3)
    assert amended(report, None) is report
    assert amended(report, InFlightJob("mine", "f", "default", JobOutcome.FINISHED)).jobs.finished == 4
    assert amended(report, InFlightJob("mine", "f", "default", JobOutcome.FAILED)).jobs.failed == 2


def test_sealed_report_learns_of_a_job_that_it_did_not_have() -> None:
    """A sealed report gets a held job that it did not list."""
    report = a_report(outcome=Outcome.FORCED, phase=Phase.SEALED)
    back = InFlightJob("fetched", "f", "default", JobOutcome.RETURNED)
    assert amended(report, back).jobs.in_flight == (back,)
    # What it held last and had long come to its end is none that the shutdown met.
    assert amended(report, InFlightJob("old", "f", "default", JobOutcome.FINISHED)).jobs == JobTally()


@pytest.mark.parametrize("outcome", [JobOutcome.FINISHED, JobOutcome.KILLED])
def test_killed_worker_keeps_the_stack_of_its_job(outcome: JobOutcome) -> None:
    """The stack of the interrupted job is kept."""
    mine = InFlightJob("mine", "f", "default", JobOutcome.RUNNING, stack="here")
    report = closed(
        a_report(jobs=JobTally(in_flight=(mine,))), findings(job=InFlightJob("mine", "f", "default", outcome))
    )
    assert [(each.outcome, each.stack) for each in report.jobs.in_flight] == [(outcome, "here")]
