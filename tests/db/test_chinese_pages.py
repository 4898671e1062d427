"""Each page in Simplified Chinese: whatever a report holds, no word of the page itself is left in English."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from rq.job import JobStatus

from graceful.admin import trends_page
from graceful.admin.last_report import unclean_counter
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.post_mortem import GRACE_OVER, OUT_OF_MEMORY
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, ShutdownReport, Spans, utc_now
from graceful.models import RecentlyUnclean, Release, ReportedJob
from graceful.reports import sources
from graceful.reports.advice import advise
from graceful.reports.deploys.records import Member, Running
from graceful.reports.deploys.rows import Living
from graceful.reports.figures import FunctionCost, HookRuns, Need
from graceful.reports.platforms import Platform
from graceful.reports.rollup import roll_up
from graceful.worker.cluster import deploy_now
from tests.db.samples import HOOKS, MIDNIGHT, a_clean_report, a_report, save
from tests.support.chinese import english, texts_of
from tests.unit.test_advice import some_figures

pytestmark = pytest.mark.django_db

LIST = "/admin/graceful/shutdownreport/"
DEPLOY = "/admin/graceful/lastdeploy/"
TRENDS = "/admin/graceful/shutdownrollup/"
NOON = MIDNIGHT + timedelta(hours=12)


@pytest.fixture(autouse=True)
def chinese(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LANGUAGE_CODE = "zh-hans"
    monkeypatch.setattr(sources.page_archiver, "run", lambda *args: False)
    monkeypatch.setattr(deploy_now, "where_now", lambda jobs, seconds: tuple(jobs))
    monkeypatch.setattr(RecentlyUnclean, "count", 0)
    unclean_counter.forget()


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> list[Living]:
    """In the place of Redis: the living workers that a test says there are."""
    found = [Living()]

    class Fleet:
        def read(self, seconds: float) -> Living:
            return found[0]

    monkeypatch.setattr(deploy_now, "page_fleet", Fleet())
    return found


def of_each_outcome() -> list[ShutdownReport]:
    """Reports that bring out every explanation, remedy and sentence of the story."""
    jobs = tuple(
        InFlightJob(f"job-{number}", "shop.f", "default", outcome, seconds, 1, "File shop.py", MIDNIGHT, *progress)
        for number, (outcome, seconds, progress) in enumerate(
            (outcome, seconds, progress)
            for outcome in JobOutcome
            for seconds, progress in ((None, (None, None)), (3.0, (39, None)), (4.0, (39, 200)))
        )
    )
    at_trace = HOOKS[2]._replace(name="shop.fetch", traceback='File "shop/queue.py", line 42, in get')
    many = tuple(HookResult(f"hook-{number}", HookOutcome.FAILED, 0.1, error="broken_pipe") for number in range(30))
    reports = [
        a_report(outcome=outcome, reason=reason, signal=None, jobs=JobTally(1, 2, jobs[:9]))
        for outcome, reason in zip((*Outcome, *Outcome), (*Reason, None), strict=True)
    ]
    reports += [a_report(phase=phase, outcome=None, exit_code=None) for phase in Phase]
    reports += [a_report(jobs=JobTally(1, 2, jobs[start : start + 9])) for start in range(0, len(jobs), 9)]
    killed: dict[str, Any] = {"outcome": Outcome.KILLED, "exit_code": None, "phase": Phase.DRAINING, "seconds": Spans()}
    reports += [
        a_report(jobs=JobTally(40, 0, jobs), hooks=(at_trace, *many), seconds=Spans(30.0, 1.0, 31.0)),
        a_report(seconds=Spans(0.1, 0.1, 0.2)),
        a_report(seconds=Spans(None, None, None), grace=Grace()),
        a_report(grace=Grace(0.001, 0.0, 0.0)),
        a_report(hooks=(), jobs=JobTally(0, 0, ())),
        a_clean_report(hooks=HOOKS[:1] * 3, jobs=JobTally(0, 0, jobs[3:4])),
        a_report(**killed, notes=OUT_OF_MEMORY),
        a_report(**killed, notes=GRACE_OVER),
        a_report(**killed, requested_at=None, drained_at=None),
        a_report(**killed, requested_at=None, drained_at=None, ended_at=None, notes=""),
    ]
    return [report._replace(id=f"report-{number}") for number, report in enumerate(reports)]


def test_the_page_of_each_report(admin_client: Client) -> None:
    """Explanation, story, remedies, timeline, facts and tables of reports of every kind."""
    reports = of_each_outcome()
    save(*reports)
    for report in reports:
        texts = texts_of(admin_client, reverse("admin:graceful_shutdownreport_change", args=(report.id,)))
        assert english(texts, report) == [], report.id
        assert "经过" in texts


def test_the_list(admin_client: Client) -> None:
    """Columns, filters, help and buttons of the list, and the list of a search."""
    reports = of_each_outcome()
    save(*reports)
    for query in ("", "?q=web-1", "?outcome__exact=killed", "?happened_at__year=2026", "?failed_hook=close+pool"):
        texts = texts_of(admin_client, f"{LIST}{query}")
        assert english(texts, *reports, names=("web-1", "close pool")) == [], query
        assert "耗时" in texts


def test_without_reports(admin_client: Client, fleet: list[Living]) -> None:
    """What the pages say where there is nothing to show."""
    for url in (f"{LIST}last/", LIST, DEPLOY):
        assert english(texts_of(admin_client, url)) == [], url


def test_the_rows_of_the_index(admin_client: Client) -> None:
    """The rows in the admin's index, with the count of unclean shutdowns."""
    now = utc_now()
    save(a_report(requested_at=now, ended_at=now))
    texts = texts_of(admin_client, "/admin/graceful/")
    assert english(texts) == []
    assert "最近一份停机报告（24 小时内异常 1 次）" in texts


def stopped(number: int, **changes: Any) -> ShutdownReport:
    asked = NOON + timedelta(seconds=number * 0.01)
    seconds = Spans(1.5, 0.4, 2.0)
    values: dict[str, Any] = {
        "id": f"report-{number}",
        "worker": f"web-{number}",
        "release": "1",
        "requested_at": asked,
        "drained_at": asked + timedelta(seconds=1.5),
        "ended_at": asked + timedelta(seconds=2),
        "seconds": seconds,
    }
    return a_clean_report(**{**values, **changes})


def deploy_reports() -> list[ShutdownReport]:
    jobs = tuple(
        InFlightJob(f"job-{outcome}", "shop.f", "default", outcome, 17.0, 1, "File shop.py", NOON, *progress)
        for outcome in JobOutcome
        for progress in ((None, None), (39, None), (39, 200))[len(outcome) % 3 :][:1]
    )
    return [
        *(stopped(number, outcome=outcome, exit_code=70, hooks=HOOKS) for number, outcome in enumerate(Outcome)),
        stopped(10, outcome=Outcome.INTERRUPTED, jobs=JobTally(1, 0, jobs), grace=Grace(2.0, 0.4, 0.2)),
        stopped(11, reason=Reason.BURST, signal=None),
        stopped(12, reason=Reason.IDLE, signal=None),
        stopped(13, reason=Reason.MAX_JOBS, signal=None),
        *(
            stopped(number, outcome=Outcome.KILLED, exit_code=None, phase=Phase.DRAINING, notes=GRACE_OVER)
            for number in range(20, 25)
        ),
    ]


def test_the_page_of_a_deploy(admin_client: Client, fleet: list[Living]) -> None:
    """Verdict, picture, jobs, headroom, living workers and releases of a deploy; over, under way, without Redis."""
    reports = deploy_reports()
    save(*reports)
    Release.objects.create(label="0", started_at=MIDNIGHT)
    Release.objects.create(label="1", started_at=MIDNIGHT)
    Release.objects.create(label="2", started_at=NOON)
    new = Member("id-1", "new-1", "host", "2", NOON + timedelta(seconds=1), living=True)
    asked = utc_now() - timedelta(seconds=5)
    job = Running("job-1", "shop.f", "default", NOON, 39, 200)
    stopping = replace(new, id="s", release="1", requested_at=asked, phase=Phase.DRAINING, grace=Grace(25.0), job=job)
    silent, stale = replace(new, id="d", silent=True), replace(new, id="o", release="1", started_at=MIDNIGHT)
    names = ("new-1", "host")
    for living in (
        Living((new,)),
        Living((new, silent, stale, stopping, *(replace(new, id=f"n-{number}") for number in range(80)))),
        Living(known=False),
    ):
        fleet[0] = living
        for url in (DEPLOY, f"{DEPLOY}release/1/", f"{DEPLOY}of/report-10/"):
            assert english(texts_of(admin_client, url), *reports, names=names) == [], url


@pytest.mark.parametrize(
    ("now", "again"),
    [
        *((now, None) for now in ("", "gone", *(each.value for each in JobStatus))),
        *(("", again) for again in ("", "finished", "failed", "interrupted")),
    ],
)
def test_where_interrupted_jobs_went(
    admin_client: Client, fleet: list[Living], monkeypatch: pytest.MonkeyPatch, now: str, again: str | None
) -> None:
    """Each way that an interrupted job can go on is told."""
    monkeypatch.setattr(deploy_now, "where_now", lambda jobs, seconds: tuple(replace(job, now=now) for job in jobs))
    reports = deploy_reports()
    save(*reports)
    if again is not None:
        values = {"again_at": NOON + timedelta(seconds=30), "again_outcome": again}
        ReportedJob.objects.update(again_worker="new-1", again_release="2", **values)
        ReportedJob.objects.filter(job_id__contains="killed").update(again_worker="", again_release="", **values)
    assert english(texts_of(admin_client, DEPLOY), *reports, names=("new-1",)) == []


def test_deploys_that_are_drawn_otherwise(admin_client: Client, fleet: list[Living]) -> None:
    """A deploy of many workers, one that took long, one of workers without a release, and one without a shutdown."""
    many = [stopped(number)._replace(hostname=f"host-{number}") for number in range(130)]
    save(
        *many,
        *(stopped(200 + number, release="0", requested_at=NOON + timedelta(minutes=number)) for number in range(9)),
    )
    save(*(stopped(300 + number, release="", requested_at=MIDNIGHT) for number in range(3)))
    Release.objects.create(label="3", started_at=NOON)
    for url in (DEPLOY, f"{DEPLOY}release/1/", f"{DEPLOY}release/0/", f"{DEPLOY}of/report-300/", f"{DEPLOY}release/3/"):
        assert english(texts_of(admin_client, url), *many) == [], url


def test_the_page_of_trends(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days, releases, hooks, one hook day by day, advice, and what is not counted yet."""
    now = utc_now()
    reports = [
        a_report(
            id=f"report-{number}",
            outcome=list(Outcome)[number % len(Outcome)],
            release=f"2026.{number % 30}" if number % 30 else "",
            requested_at=now - timedelta(days=number % 40),
            hooks=(*HOOKS, HookResult(f"hook-{number}", HookOutcome.OK, 0.1)),
            jobs=JobTally(1, 0, (InFlightJob(f"job-{number}", "shop.f", "default", JobOutcome.KILLED, 17.0),)),
        )
        for number in range(90)
    ]
    assert english(texts_of(admin_client, TRENDS)) == []
    save(*reports)
    Release.objects.create(label="2026.5", started_at=now)
    assert english(texts_of(admin_client, TRENDS), *reports) == []
    monkeypatch.setattr(trends_page, "MOST_UNCOUNTED", 2)
    assert english(texts_of(admin_client, TRENDS), *reports) == []
    assert roll_up(60)
    for query in ("", "?days=7", "?days=90", "?days=90&hook=close+pool"):
        texts = texts_of(admin_client, f"{TRENDS}{query}")
        assert english(texts, *reports) == [], query
        assert "建议" in texts


@pytest.mark.parametrize("platform", Platform)
def test_advice(platform: Platform) -> None:
    """Each piece of advice and what it stands on, for each platform."""
    hooks = [HookRuns("shop.leave", 30, 20, 1.0, p95) for p95 in (None, 0.2, 0.8)]
    functions = (FunctionCost("shop.f", 3, 0.0), FunctionCost("shop.g", 9, 40.0))
    kinds = (
        some_figures(),
        some_figures(interrupted=0),
        some_figures(grace_over=2, functions=functions, hook_runs=tuple(hooks)),
        some_figures(needs=(*[Need(1.5)] * 197, Need(20.0, at_least=True), Need(30.0), Need(31.0, at_least=True))),
        some_figures(needs=(*[Need(1.5)] * 197, *[Need(17.0, at_least=True)] * 3)),
        some_figures(needs=(*[Need(1.5)] * 197, *[Need(1700.0)] * 3)),
        some_figures(needs=(*[Need(1.5)] * 197, *[Need(18.0)] * 3), grace=Grace(15.0, 3.0, 2.0)),
    )
    for figures in kinds:
        advice = advise(replace(figures, platform=platform))
        texts = [text for each in advice for text in (each.text, each.basis)]
        assert texts
        assert english(texts, names=("shop.leave", "shop.f", "shop.g")) == []


def test_commands_and_checks_speak_english(settings: Any, tmp_path: Any) -> None:
    """What is read by scripts, or looked for in a log, is the same in every language; advice too."""
    settings.RQ_QUEUES, settings.GRACEFUL_SPOOL_DIR = {}, str(tmp_path)
    now = utc_now()
    jobs = JobTally(1, 0, (InFlightJob("job-1", "shop.f", "default", JobOutcome.KILLED, 17.0),))
    save(*(a_report(requested_at=now, outcome=Outcome.INTERRUPTED, jobs=jobs) for _ in range(30)))
    out = StringIO()
    for arguments in (("--advice",), ("--last",), ("--advice", "--format", "json")):
        call_command("shutdown_report", *arguments, stdout=out)
    found = [each for each in checks.run_checks(databases=["default"]) if each.id == "graceful.W004"]
    assert found
    assert "interrupted" in out.getvalue()
    assert (
        re.search(r"[\u4e00-\u9fff]|\\u[4-9]", out.getvalue() + "".join(f"{each.msg}{each.hint}" for each in found))
        is None
    )
