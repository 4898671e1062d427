"""Made-up shutdowns of eight weeks, so that the demo's page of trends and the advice have something to say."""

from __future__ import annotations

import random
from datetime import timedelta

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, ShutdownReport, Spans, utc_now
from graceful.models import Release, ReportedHook, ReportedJob
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.rollup import roll_up
from graceful.reports.rows import rows_of

WEEKS, WORKERS = 8, 4
GRACE = Grace(20.0, 5.0, 3.0)
SECONDS = 30.0


def make_history() -> int:
    """Store a deploy every other day, the same one each time; returns how many reports were new.

    Their release labels, ``made-up-1`` and so on, tell them from the demo's own.
    """
    chance, now, made = random.Random(1), utc_now(), 0
    for number in range(WEEKS * 7 // 2):
        label = f"made-up-{number + 1}"
        at = now - timedelta(days=WEEKS * 7 - 2 * number, minutes=chance.randrange(600))
        Release.objects.get_or_create(label=label, defaults={"started_at": at})
        for worker in range(WORKERS):
            rows = rows_of(_shutdown(chance, number, worker, label))
            rows.report.happened_at = rows.report.requested_at = at
            if ArchivedReport.objects.filter(pk=rows.report.pk).exists():
                continue
            rows.report.save(force_insert=True)
            ReportedHook.objects.bulk_create(rows.hooks)
            ReportedJob.objects.bulk_create(rows.jobs)
            made += 1
    roll_up(SECONDS)
    return made


def _shutdown(chance: random.Random, number: int, worker: int, label: str) -> ShutdownReport:
    """One shutdown: some interrupt their job, and a hook gets slower with each release."""
    interrupted = chance.random() < 0.06
    drain = 15.0 if interrupted else chance.expovariate(1 / 2.5) % 11
    slow = 0.2 + 2.0 * number / (WEEKS * 3.5) * chance.random()
    late = slow > 1.5
    hooks = (
        HookResult("graceful.hooks.builtin.stop_threads", HookOutcome.OK, 0.001 + chance.random() / 50, 1.0),
        HookResult("samples.close_pool", HookOutcome.TIMED_OUT if late else HookOutcome.OK, min(1.5, slow), 1.5),
        HookResult("graceful.hooks.builtin.save_worker_statistics", HookOutcome.OK, chance.random() / 12, 1.0),
    )
    outcome = Outcome.HOOKS_FAILED if late else Outcome.INTERRUPTED if interrupted else Outcome.CLEAN
    job = InFlightJob(
        id=f"made-up-{number}-{worker}",
        function="demo_project.jobs.count_identifiers",
        queue="graceful-demo",
        outcome=JobOutcome.KILLED if interrupted else JobOutcome.FINISHED,
        seconds=drain,
        interruptions=int(interrupted),
    )
    now = utc_now()
    spent = sum(hook.seconds for hook in hooks)
    return ShutdownReport(
        id=f"made-up-{number}-{worker}",
        worker=f"made-up.{worker}",
        hostname="made-up",
        pid=worker,
        queues=("graceful-demo",),
        worker_class="demo_project.worker.SamplingWorker",
        started_at=now - timedelta(days=WEEKS * 7 + 1),
        release=label,
        reason=Reason.SIGNAL,
        signal="SIGTERM",
        outcome=outcome,
        exit_code={Outcome.CLEAN: 0, Outcome.INTERRUPTED: 75}.get(outcome, 70),
        phase=Phase.SEALED,
        requested_at=now,
        seconds=Spans(drain, spent, drain + spent),
        jobs=JobTally(finished=chance.randrange(40, 90), failed=0, in_flight=(job,)),
        hooks=hooks,
        grace=GRACE,
    )
