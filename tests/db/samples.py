"""Reports for tests of the archive, its pages and its commands."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, PeakMemory, ShutdownReport, Spans
from graceful.models import ID_LENGTH, NAME_LENGTH, WORD_LENGTH, ReportedHook, ReportedJob, ReportKeyword
from graceful.reports.rows import rows_of

MIDNIGHT = datetime(2026, 3, 1, 0, 0, tzinfo=UTC)

HOOKS = (
    HookResult("flush statistics", HookOutcome.OK, 0.042, 1.0, detail="flushed 312 counters"),
    HookResult(
        "close pool",
        HookOutcome.FAILED,
        0.31,
        1.0,
        error="OSError: [Errno 5] Input/output error",
        traceback='Traceback (most recent call last):\n  File "shop/hooks.py", line 7, in close\nOSError: [Errno 5]',
    ),
    HookResult(
        "drain telemetry", HookOutcome.TIMED_OUT, 1.0, 1.0, error="HookTimedOut", traceback="stack where it hung"
    ),
    HookResult("flush sentry", HookOutcome.SKIPPED, detail="sentry_sdk is not installed"),
)
JOBS = (
    InFlightJob(
        "job-1",
        "shop.jobs.rebuild_index",
        "default",
        JobOutcome.INTERRUPTED,
        12.5,
        2,
        "File shop/jobs.py",
        MIDNIGHT,
        39,
        200,
    ),
    InFlightJob("job-2", "shop.jobs.send_mail", "mail", JobOutcome.FINISHED, 0.75),
)


def a_report(**changes: Any) -> ShutdownReport:
    """A sealed report with something in every field; its id is a new one unless given."""
    report = ShutdownReport(
        id=uuid.uuid4().hex,
        worker="web-1.4242",
        hostname="web-1",
        pid=4242,
        queues=("default", "mail"),
        worker_class="graceful.worker.GracefulWorker",
        started_at=MIDNIGHT,
        release="2026.03.1",
        reason=Reason.SIGNAL,
        signal="SIGTERM",
        outcome=Outcome.HOOKS_FAILED,
        exit_code=70,
        phase=Phase.SEALED,
        requested_at=MIDNIGHT + timedelta(hours=1),
        drained_at=MIDNIGHT + timedelta(hours=1, seconds=12.5),
        ended_at=MIDNIGHT + timedelta(hours=1, seconds=14.25),
        seconds=Spans(drain=12.5, hooks=1.5, total=14.25),
        jobs=JobTally(finished=41, failed=1, in_flight=JOBS),
        hooks=HOOKS,
        notes="The scheduler had to be killed.",
        grace=Grace(25.0, 5.0, 3.0),
        peak=PeakMemory(120 * 1024 * 1024, 480 * 1024 * 1024),
    )
    return report._replace(**changes)


def save(*reports: ShutdownReport) -> None:
    """Insert reports with their rows over the test's own connection."""
    for report in reports:
        rows = rows_of(report)
        rows.report.save(force_insert=True)
        ReportedHook.objects.bulk_create(rows.hooks)
        ReportedJob.objects.bulk_create(rows.jobs)
        ReportKeyword.objects.bulk_create(rows.keywords)


def a_clean_report(**changes: Any) -> ShutdownReport:
    """A sealed report of a shutdown without anything remarkable."""
    clean = {
        "outcome": Outcome.CLEAN,
        "exit_code": 0,
        "hooks": HOOKS[:1],
        "jobs": JobTally(finished=3, failed=0, in_flight=JOBS[1:]),
        "notes": "",
    }
    return a_report(**{**clean, **changes})


def reports() -> st.SearchStrategy[ShutdownReport]:
    """Any report that came over JSON, and so is fit for a database."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
    name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=NAME_LENGTH)
    # Microseconds, as JSON keeps them; years that stay years in every time zone.
    moment = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
    seconds = st.integers(-(10**9), 10**12).map(lambda millionths: millionths / 1_000_000)
    whole = st.integers(-(2**31), 2**31 - 1)

    def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.none() | strategy

    hook = st.builds(
        HookResult, text, st.sampled_from(HookOutcome), seconds, maybe(seconds), detail=text, error=text, traceback=text
    )
    items = maybe(st.integers(0, 2**53 - 1))
    job = st.builds(
        InFlightJob,
        name,
        text,
        text,
        st.sampled_from(JobOutcome),
        maybe(seconds),
        whole,
        text,
        maybe(moment),
        items,
        items,
    )
    return st.builds(
        ShutdownReport,
        id=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=ID_LENGTH),
        worker=name,
        hostname=name,
        pid=whole,
        queues=st.lists(text, max_size=5).map(tuple),
        worker_class=text,
        started_at=moment,
        release=name,
        reason=maybe(st.sampled_from(Reason)),
        signal=maybe(st.text("SIGTERM+0123", max_size=WORD_LENGTH)),
        outcome=maybe(st.sampled_from(Outcome)),
        exit_code=maybe(whole),
        phase=st.sampled_from(Phase),
        requested_at=maybe(moment),
        drained_at=maybe(moment),
        ended_at=maybe(moment),
        seconds=st.builds(Spans, maybe(seconds), maybe(seconds), maybe(seconds)),
        jobs=st.builds(JobTally, whole, whole, st.lists(job, max_size=4).map(tuple)),
        hooks=st.lists(hook, max_size=4).map(tuple),
        notes=text,
        grace=st.builds(Grace, maybe(seconds), maybe(seconds), maybe(seconds)),
        quiet=st.just(False),  # Of a living worker, and not stored.
        peak=st.builds(PeakMemory, items, items),
    )
