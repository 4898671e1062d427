"""The page of trends: what it shows, from how many queries, and to whom."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from demo_project.history import make_history
from graceful.admin import trends_page
from graceful.admin.last_report import unclean_counter
from graceful.core.phases import HookOutcome, JobOutcome, Outcome
from graceful.core.records import HookResult, InFlightJob, JobTally
from graceful.models import HookRollup, Release, ShutdownRollup
from graceful.reports import hook_trends, rollup, sources
from graceful.reports import trends as trends_module
from graceful.reports.advice import advice_for
from graceful.reports.rollup import roll_up
from graceful.reports.trends import trends
from tests.db.samples import a_clean_report, a_report
from tests.db.stored import save

pytestmark = pytest.mark.django_db

PAGE = "/admin/graceful/shutdownrollup/"
NOW = datetime.now(UTC)
TODAY = NOW.date()
INTERRUPTED: dict[str, Any] = {
    "outcome": Outcome.INTERRUPTED,
    "jobs": JobTally(1, 0, (InFlightJob("1", "f", "q", JobOutcome.KILLED),)),
}


@pytest.fixture(autouse=True)
def no_archiving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that wait are archived in transactions of their own, which has tests of its own."""
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: False)


@pytest.fixture
def as_reader(client: Client) -> Client:
    """A client whose user may see reports, and nothing else."""
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_shutdownreport"))
    client.force_login(user)
    return client


def happened(days_ago: int, **changes: Any) -> dict[str, Any]:
    return {"requested_at": datetime.combine(TODAY - timedelta(days=days_ago), NOW.timetz()), **changes}


def roll_up_reports() -> None:
    assert roll_up(60)


def html(client: Client, query: str = "") -> str:
    response = client.get(PAGE + query)
    assert response.status_code == 200
    return response.content.decode()


def test_share_of_clean_shutdowns_by_day() -> None:
    """A bar for each day with shutdowns, its share of clean ones, and in words what the others were."""
    save(*(a_clean_report(**happened(1)) for _ in range(3)), a_report(**happened(1, **INTERRUPTED)))
    save(a_clean_report(**happened(6)), a_clean_report(**happened(7)))
    roll_up_reports()
    page = trends(7)
    assert [(day.x, day.shutdowns, day.clean, day.rest) for day in page.bars] == [
        (0, 1, "100.0 %", ""),
        (50, 4, "75.0 %", "1 interrupted"),
    ]
    assert page.bars[1].title == f"{TODAY - timedelta(days=1)}: 4 shutdowns, 75.0 % clean, 1 interrupted"
    assert page.summary == "80.0 % of 5 shutdowns were clean."
    shapes = {shape.kind: shape.path for shape in page.shapes}
    assert shapes == {"clean": "M1 100V0h8V100zM51 100V25h8V100z", "interrupted": "M51 25V0h8V25z"}


def test_one_in_a_thousand_is_seen() -> None:
    """However small the share of what was not clean, it has a bar, and is not rounded away."""
    ShutdownRollup.objects.create(day=TODAY, outcome=Outcome.CLEAN, count=99_999)
    ShutdownRollup.objects.create(day=TODAY, outcome=Outcome.KILLED, count=1)
    page = trends(7)
    assert page.bars[0].clean == "99.9 %"
    assert {shape.kind: shape.path for shape in page.shapes}["killed"] == "M61 3V0h8V3z"


def test_releases_are_lines_and_rows() -> None:
    """Where a release started is a line; each release has a row with its share, the newest first."""
    save(a_clean_report(**happened(2, release="r1")), a_clean_report(**happened(1, release="r1")))
    save(a_clean_report(**happened(0, release="r2\x1b")), a_report(**happened(0, release="r2\x1b", **INTERRUPTED)))
    save(a_clean_report(**happened(0, release="")))
    roll_up_reports()
    Release.objects.create(label="r1", started_at=NOW - timedelta(days=30))
    Release.objects.create(label="r2\x1b", started_at=NOW)
    page = trends(7)
    assert page.lines == (60,)
    assert page.bars[-1].releases == r"release r2\x1b started"
    assert [(row.label, row.started, row.shutdowns, row.clean, row.interrupted) for row in page.releases] == [
        (r"r2\x1b", f"{TODAY}", 2, "50.0 %", 1),
        ("(no label)", "-", 1, "100.0 %", 0),
        ("r1", f"{TODAY - timedelta(days=30)}", 2, "100.0 %", 0),
    ]


def test_hooks_over_time() -> None:
    """Each hook with its percentiles, failures and time-outs, the worst first; day by day where it is chosen.

    Of a percentile in the first bucket only that is known.
    """
    ok, late = HookResult("slow", HookOutcome.OK, 0.7, 2.0), HookResult("slow", HookOutcome.TIMED_OUT, 2.0, 2.0)
    fine = HookResult("fine", HookOutcome.OK, 0.04, 2.0)
    save(*(a_clean_report(**happened(1, hooks=(ok, fine, fine))) for _ in range(3)))
    save(a_clean_report(**happened(0, hooks=(late, fine, fine))))
    roll_up_reports()
    slow, other = trends(7).hooks
    assert (slow.name, slow.runs, slow.failed, slow.timed_out) == ("slow", 4, 0, 1)
    assert (other.name, other.runs, other.failed, other.timed_out, other.p50, other.p95) == (
        *("fine", 8, 0, 0),
        *("< 0.05 s", "< 0.05 s"),
    )
    shapes = {shape.kind: shape.path for shape in slow.shapes}
    assert shapes["bad"] == "M61 6V0h8V6z"
    assert shapes["p95"].startswith("M51 100V59")
    assert shapes["p95"].endswith("M61 100V0h8V100z")
    assert slow.words == f"p95 by day: at most 2.42 s, on {TODAY}; at last 2.42 s. Failed or timed out on 1 day."
    assert slow.days == ()
    chosen = trends(7, "slow").hook
    assert chosen is not None
    assert [(day.day, day.runs, day.p50, day.timed_out) for day in chosen.days] == [
        (f"{TODAY - timedelta(days=1)}", 3, "0.75 s", 0),
        (f"{TODAY}", 1, "1.75 s", 1),
    ]
    assert trends(7, "unheard of").hook is None
    assert trends(7, "\x00").hook is None


def test_more_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases and hooks beyond a number are left out, and the page says so."""
    monkeypatch.setattr(trends_module, "MOST_RELEASES", 2)
    monkeypatch.setattr(hook_trends, "MOST_HOOKS", 2)
    for number in range(3):
        ShutdownRollup.objects.create(day=TODAY, release=f"r{number}", outcome=Outcome.CLEAN, count=1)
        HookRollup.objects.create(day=TODAY, name=f"h{number}", outcome=HookOutcome.OK, count=1)
    page = trends(7)
    assert (len(page.releases), page.more_releases) == (2, True)
    assert (len(page.hooks), page.more_hooks) == (2, True)
    monkeypatch.setattr(trends_module, "MOST_RELEASES", 3)
    monkeypatch.setattr(hook_trends, "MOST_HOOKS", 3)
    page = trends(7)
    assert (len(page.releases), page.more_releases) == (3, False)
    assert (len(page.hooks), page.more_hooks) == (3, False)


def test_the_page(as_reader: Client) -> None:
    """Summary, picture with a text alternative, tables, advice, and links to the other ranges."""
    save(*(a_clean_report(**happened(number % 20)) for number in range(30)))
    save(a_report(**happened(3, hooks=())))
    roll_up_reports()
    Release.objects.create(label="2026.03.1", started_at=NOW)
    page = html(as_reader)
    assert '<a href="?days=30" aria-current="page">30 days</a>' in page
    assert re.search(r'<svg class="graceful-chart"[^>]*role="img" aria-label="96.8 % of 31 shutdowns were clean', page)
    for words in (
        "The figures by day",
        "By release",
        "2026.03.1",
        "Exit hooks over time",
        "flush statistics",
        "Advice",
    ):
        assert words in page
    assert "From 31 shutdowns with this grace period" in page
    assert "<script" not in re.sub(r'<script src="/static/admin/[^>]*></script>', "", page)
    assert "style=" not in page
    hook = re.search(r'href="(\?days=30&amp;hook=flush%20statistics#graceful-hook)"', page)
    assert hook
    assert "Exit hook flush statistics, day by day" in html(as_reader, "?days=30&hook=flush%20statistics")


def test_reports_that_are_not_counted_yet(as_reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as reports wait to be counted the page says how many, up to a number."""
    save(a_clean_report(**happened(0)), a_clean_report(**happened(0)), a_report(outcome=None))
    assert "2 reports are not counted yet." in html(as_reader)
    monkeypatch.setattr(rollup, "MOST_UNCOUNTED", 2)
    monkeypatch.setattr(trends_page, "MOST_UNCOUNTED", 2)
    assert "Many reports are not counted here yet." in html(as_reader)
    roll_up_reports()
    assert "counted" not in html(as_reader)


@pytest.mark.parametrize("query", ["", "?days=7", "?days=90", "?days=8", "?days=x", "?hook=%00", "?hook=" + "x" * 5000])
def test_nothing_to_show(as_reader: Client, query: str) -> None:
    """Without roll-ups, and with anything in the address, the page says that nothing is known."""
    assert "No shutdown is known of these days." in html(as_reader, query)


def test_hostile_names(as_reader: Client) -> None:
    """Names are escaped wherever the page shows them."""
    payload = "\"'><script>alert(1)</script>\x1b\u202e"
    hook = HookResult(payload, HookOutcome.TIMED_OUT, 1.0, 1.0)
    save(*(a_clean_report(**happened(0, hooks=(hook,), release=payload)) for _ in range(25)))
    roll_up_reports()
    Release.objects.create(label=payload, started_at=NOW)
    page = html(as_reader, f"?hook={payload}".replace("&", "%26").replace("#", "%23"))
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "day by day" in page


def test_the_demo_has_something_to_show() -> None:
    """The made-up history of ``make demo-admin`` fills the page, draws advice, and is added once."""
    assert make_history() == 112
    assert make_history() == 0
    page = trends(90)
    assert sum(day.shutdowns for day in page.bars) == 112
    assert len(page.lines) == 28
    assert page.hooks[0].name == "samples.close_pool"
    assert page.hooks[0].timed_out
    assert advice_for(timedelta(days=90))[0].about == "grace"


def test_who_may_see_it(client: Client, as_reader: Client) -> None:
    """Those who may see reports; it is linked from the index and the list, and takes nothing but GET."""
    index = as_reader.get("/admin/").content.decode()
    assert f'href="{PAGE}"' in index
    assert f'href="{PAGE}"' in as_reader.get(reverse("admin:graceful_shutdownreport_changelist")).content.decode()
    assert as_reader.post(PAGE).status_code == 405
    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(PAGE).status_code == 403
    client.logout()
    assert client.get(PAGE).status_code == 302


def test_a_fixed_number_of_queries(as_reader: Client) -> None:
    """As many queries with many days, releases and hooks as with few."""
    numbers = []
    for count in (1, 60):
        for number in range(count):
            hooks = tuple(HookResult(f"h{number}-{each}", HookOutcome.TIMED_OUT, 1.0) for each in range(2))
            save(a_report(**happened(number, release=f"r{count}-{number}", hooks=hooks)))
        roll_up_reports()
        unclean_counter.forget()  # Else the page asks for the count in its sidebar now and then.
        with CaptureQueriesContext(connection) as queries:
            html(as_reader, "?days=90&hook=h0-0")
        numbers.append(len(queries))
    assert numbers[0] == numbers[1] <= 23
