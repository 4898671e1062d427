"""The pages of deploys: what they show, to whom, of how many workers, and what they ask the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from graceful.admin import deploys
from graceful.core.phases import JobOutcome, Outcome
from graceful.core.records import Grace, InFlightJob, JobTally, ShutdownReport, Spans
from graceful.models import Release, ReportedHook, ReportedJob
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.deploys.records import Member
from graceful.reports.deploys.rows import Living
from graceful.reports.rows import rows_of
from tests.db.samples import MIDNIGHT, a_clean_report

pytestmark = pytest.mark.django_db

LAST = "/admin/graceful/lastdeploy/"
NOON = MIDNIGHT + timedelta(hours=12)
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


class Fleet:
    """In the place of Redis: the living workers that a test says there are."""

    def __init__(self) -> None:
        self.living = Living()

    def read(self, seconds: float) -> Living:
        return self.living


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """No Redis: reading it has tests of its own."""
    fleet = Fleet()
    monkeypatch.setattr(deploys, "page_fleet", fleet)
    monkeypatch.setattr(deploys.page_archiver, "run", lambda seconds: False)
    monkeypatch.setattr(deploys, "where_now", lambda jobs, seconds: tuple(jobs))
    return fleet


@pytest.fixture
def as_reader(client: Client) -> Client:
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_shutdownreport"))
    client.force_login(user)
    return client


def save(reports: Iterable[ShutdownReport]) -> None:
    rows = [rows_of(report) for report in reports]
    ArchivedReport.objects.bulk_create([each.report for each in rows], batch_size=500)
    ReportedHook.objects.bulk_create([hook for each in rows for hook in each.hooks], batch_size=500)
    ReportedJob.objects.bulk_create([job for each in rows for job in each.jobs], batch_size=500)


def stopped(number: int, seconds: float = 2.0, **changes: Any) -> ShutdownReport:
    """A worker of release 1 that was stopped at noon, some time after its predecessor."""
    asked = NOON + timedelta(seconds=number * 0.01)
    drained = asked + timedelta(seconds=seconds - 0.5)
    values: dict[str, Any] = {
        "id": f"report-{number}",
        "worker": f"web-{number}",
        "hostname": f"host-{number % 50}",
        "release": "1",
        "started_at": MIDNIGHT,
        "requested_at": asked,
        "drained_at": drained,
        "ended_at": asked + timedelta(seconds=seconds),
        "seconds": Spans(seconds - 0.5, 0.4, seconds),
        "jobs": JobTally(3, 0, ()),
    }
    return a_clean_report(**{**values, **changes})


def living(number: int, release: str = "2", **changes: Any) -> Member:
    return replace(
        Member(f"life-{number}", f"new-{number}", "host", release, NOON + timedelta(seconds=1 + number), living=True),
        **changes,
    )


def page_of(client: Client, url: str = LAST) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.status_code
    page: str = response.content.decode()
    return page[page.index('<div id="graceful-deploy"') :]


def test_one_page_after_a_deploy(as_reader: Client, fleet: Fleet) -> None:
    """The page says in a sentence how it went, draws a bar a worker, and tells where each interrupted job went."""
    lost = InFlightJob(
        "job-1", "shop.rebuild", "default", JobOutcome.INTERRUPTED, 17.0, 1, "File shop.py, line 9", NOON, 39, 200
    )
    save(
        [
            *(stopped(number) for number in range(3)),
            stopped(
                3, 20.0, outcome=Outcome.INTERRUPTED, exit_code=75, jobs=JobTally(3, 0, (lost,)), grace=Grace(25, 5, 3)
            ),
        ]
    )
    ReportedJob.objects.update(
        again_at=NOON + timedelta(seconds=33.53), again_worker="new-1", again_release="2", again_outcome="finished"
    )
    Release.objects.create(label="1", started_at=MIDNIGHT)
    Release.objects.create(label="2", started_at=NOON)
    fleet.living = Living(tuple(living(number) for number in range(4)))
    page = page_of(as_reader)
    assert "Release 1: 3 of 4 workers ended cleanly. 1 job was interrupted, and ran again within 14.00 s." in page
    assert "The slowest took 20.00 s of 25.00 s." in page
    assert page.count("graceful-part-drain") >= 4
    assert "ran again after 14.00 s on worker new-1 of release 2: finished" in page
    assert "goes on at 39 of 200" in page
    assert "File shop.py, line 9" in page
    assert "At the lowest, 0 of 4 workers took jobs" in page
    assert "data-live" not in page
    assert page == page_of(as_reader, reverse("admin:graceful_lastdeploy_release", args=(quote("1"),)))
    assert page == page_of(as_reader, reverse("admin:graceful_lastdeploy_of", args=("report-2",)))


def test_a_deploy_of_two_thousand_workers(as_reader: Client, fleet: Fleet) -> None:
    """2,000 workers are grouped, with no more queries than a few, in less than 150 ms of the server's time."""
    save(stopped(number, 2 + number % 20) for number in range(2000))
    fleet.living = Living(tuple(living(number) for number in range(2000)))
    page_of(as_reader)
    times = []
    for _run in range(5):
        with CaptureQueriesContext(connection) as queries:
            began = time.perf_counter()
            page = page_of(as_reader)
            times.append(time.perf_counter() - began)
    print(times, len(queries), len(page))
    assert "2000 of 2000 workers ended cleanly" in page
