"""The admin's pages: who may see them, that nothing in them runs, and what they ask the database."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse

from graceful.admin import change_list
from graceful.admin.last_report import unclean_counter
from graceful.core import report_json
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Reason
from graceful.core.records import HookResult, InFlightJob, JobTally, ShutdownReport, Spans
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import sources
from graceful.reports.rows import record_of, rows_of
from graceful.reports.spool import Spool
from tests.db.samples import MIDNIGHT, a_clean_report, a_report, save

pytestmark = pytest.mark.django_db

LIST = "/admin/graceful/shutdownreport/"
LAST = "/admin/graceful/shutdownreport/last/"


@pytest.fixture(autouse=True)
def no_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bringing reports home commits, and has tests of its own; so has the count in the index."""
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: False)
    monkeypatch.setattr(unclean_counter, "refresh", lambda: None)


@pytest.fixture
def reader() -> User:
    """A user who may see reports, and nothing else."""
    user = User.objects.create_user("reader", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_shutdownreport"))
    return user


@pytest.fixture
def as_reader(client: Client, reader: User) -> Client:
    client.force_login(reader)
    return client


def url_of(report: ShutdownReport, view: str = "change") -> str:
    return reverse(f"admin:graceful_shutdownreport_{view}", args=(quote(report.id),))


def rows_shown(client: Client, query: str = "") -> list[str]:
    """Names of the workers in the list."""
    response = client.get(f"{LIST}{query}")
    assert response.status_code == 200, f"{response.status_code} {response.headers.get('Location')}"
    return [row.worker for row in response.context["cl"].result_list]


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


# -- who may see what ------------------------------------------------------------------------------------------------


def test_only_the_view_permission_exists() -> None:
    """The models define no permission but ``view``, and those to requeue a poison job and to make workers quiet."""
    names = Permission.objects.filter(content_type__app_label="graceful").values_list("codename", flat=True)
    assert sorted(names) == ["quiet_workers", "requeue_poison", "view_shutdownreport"]


@pytest.mark.parametrize("path", ["", "last/", "{id}/change/", "{id}/export/", "{id}/history/"])
def test_nothing_without_the_permission(client: Client, path: str) -> None:
    """Every page is 403 for a user without the view permission, and redirects an anonymous one to the login."""
    report = a_report()
    save(report)
    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(LIST + path.format(id=report.id)).status_code == 403
    assert client.get("/admin/graceful/lastshutdownreport/").status_code == 403
    assert "graceful" not in client.get("/admin/").content.decode()
    client.logout()
    assert client.get(LIST + path.format(id=report.id)).status_code == 302


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("path", ["add/", "{id}/delete/"])
def test_not_even_a_superuser_can_add_or_delete(admin_client: Client, method: str, path: str) -> None:
    """A superuser can neither add nor change nor delete a report."""
    report = a_report()
    save(report)
    assert getattr(admin_client, method)(LIST + path.format(id=report.id)).status_code == 403
    assert ArchivedReport.objects.count() == 1


@pytest.mark.parametrize("path", ["", "{id}/change/", "{id}/export/"])
def test_a_post_changes_nothing(admin_client: Client, path: str) -> None:
    """A POST with a forged form changes nothing."""
    report = a_report()
    save(report)
    form = {"worker": "forged", "action": "delete_selected", "_selected_action": report.id, "post": "yes"}
    admin_client.post(LIST + path.format(id=report.id), form)
    assert record_of(ArchivedReport.objects.get()) == report


def test_last_is_one_click_from_the_index(as_reader: Client) -> None:
    """The admin's index links to the newest report."""
    old, newest = a_report(), a_report(requested_at=MIDNIGHT + timedelta(days=2))
    save(newest, old)
    index = as_reader.get("/admin/").content.decode()
    (link,) = set(re.findall(r'<a href="([^"]+)"[^>]*>Last shutdown report</a>', index))
    assert as_reader.get(link).headers["Location"] == url_of(newest)
    assert as_reader.get(LAST).headers["Location"] == url_of(newest)
    assert f'href="{LAST}"' in as_reader.get(LIST).content.decode()


def test_last_without_any_report(as_reader: Client) -> None:
    """Without any report the link leads to the list, with a message."""
    response = as_reader.get(LAST, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert "There is no shutdown report yet." in response.content.decode()


@pytest.mark.django_db(transaction=True)
def test_pages_archive_waiting_reports(
    as_reader: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, settings: Any
) -> None:
    """Opening a page archives the reports that still wait in Redis."""
    settings.GRACEFUL_SPOOL_DIR = str(tmp_path)
    settings.RQ_QUEUES = {}
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: sources.archive_everything(5).archived > 0)
    first, second, third = (a_report(worker=name) for name in ("first", "second", "third"))
    Spool(tmp_path).write(first)
    assert rows_shown(as_reader) == ["first"]
    Spool(tmp_path).write(second)
    assert as_reader.get(url_of(second)).status_code == 200
    Spool(tmp_path).write(third)
    as_reader.get(LAST)
    assert ArchivedReport.objects.count() == 3


# -- what a page shows -----------------------------------------------------------------------------------------------


def test_the_page_of_a_report(as_reader: Client) -> None:
    """The page shows every fact of the report."""
    report = a_report()
    save(report)
    page = as_reader.get(url_of(report)).content.decode().replace("<wbr>", "")
    for fact in (
        "signal (SIGTERM)",
        "web-1, process 4242",
        "default, mail",
        "2026.03.1",
        "graceful.worker.GracefulWorker",
        "2026-03-01 01:00:12.500",
        "after 12.50 s",
        "14.25 s in all",
        "flushed 312 counters",
        "OSError: [Errno 5] Input/output error",
        "sentry_sdk is not installed",
        "timed out",
        "shop.jobs.rebuild_index",
        "File shop/jobs.py",
        "41 finished and 1 failed",
        "The scheduler had to be killed.",
    ):
        assert fact in page
    assert f'href="{url_of(report, "export")}"' in page


def test_the_page_of_a_report_with_gaps(as_reader: Client) -> None:
    """The page of a killed worker's report shows its gaps as unknown."""
    report = a_report(
        reason=None,
        signal=None,
        outcome=None,
        exit_code=None,
        requested_at=None,
        drained_at=None,
        ended_at=None,
        seconds=Spans(),
        jobs=JobTally(),
        hooks=(),
        queues=(),
        release="",
        notes="",
    )
    save(report)
    page = as_reader.get(url_of(report)).content.decode()
    assert "not observed" in page
    assert "Timeline" not in page
    assert rows_shown(as_reader) == ["web-1.4242"]


def test_the_export_is_the_one_json_form(as_reader: Client) -> None:
    """The export is the report's one JSON form."""
    report = a_report(id='a/b"c?d e')
    save(report)
    response = as_reader.get(url_of(report, "export"))
    assert json.loads(response.content) == report_json.plain(report)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert as_reader.get(url_of(report)).status_code == 200


@pytest.mark.parametrize("view", ["change", "export", "history"])
@pytest.mark.parametrize("report_id", ["nothing", "x" * 2000, "a\x00b"])
def test_a_report_that_is_not_there(as_reader: Client, view: str, report_id: str) -> None:
    """An unknown id is answered with a redirect, not an error page."""
    response = as_reader.get(reverse(f"admin:graceful_shutdownreport_{view}", args=(quote(report_id),)))
    assert response.status_code == 302


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "</pre></details><script>alert(2)</script>",
    "{{ settings.SECRET_KEY }}{% debug %}",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066",
    "nul\x00bell\x07escape\x1b[2J",
    "line\r\nbreak\u2028",
    "&lt;b&gt;&amp;",
    "x" * 20_000,
)


def hostile_report(text: str) -> ShutdownReport:
    return a_report(
        worker=text,
        hostname=text,
        release=text,
        queues=(text, text),
        worker_class=text,
        signal=text,
        notes=text,
        jobs=JobTally(1, 1, (InFlightJob(text, text, text, JobOutcome.KILLED, stack=text),)),
        hooks=(HookResult(text, HookOutcome.FAILED, detail=text, error=text, traceback=text),),
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_from_outside_gets_into_the_markup(as_reader: Client, text: str) -> None:
    """Names and texts of jobs and hooks are escaped on every page."""
    harmless, hostile = a_report(), hostile_report(text)
    save(harmless)
    expected = {page: Tags(as_reader.get(page).content.decode()).found for page in (LIST, url_of(harmless))}
    ArchivedReport.objects.all().delete()
    save(hostile)
    for page, twin in ((LIST, LIST), (url_of(hostile), url_of(harmless))):
        body = as_reader.get(page).content.decode()
        found = Tags(body).found
        names = {tag for tag, _ in found}
        assert names <= {tag for tag, _ in expected[twin]}
        assert [attrs for tag, attrs in found if tag == "script"] == [
            attrs for tag, attrs in expected[twin] if tag == "script"
        ]
        assert not [attr for _, attrs in found for attr in attrs if attr.startswith("on")]
        assert not [attrs for _, attrs in found if (attrs.get("href") or "").startswith("javascript")]
        assert not re.search("[\x00\x07\x1b\u202e\u2066\u2028]", body)
        assert "SECRET" not in body or "{{ settings.SECRET_KEY }}" in body


def test_pages_have_no_script_or_style_of_their_own(as_reader: Client) -> None:
    """Pages contain no inline script or style, so a strict Content-Security-Policy holds."""
    report = a_report()
    save(report)
    tags = Tags(as_reader.get(url_of(report)).content.decode()).found
    assert not [attrs for tag, attrs in tags if tag == "script" and "src" not in attrs]
    assert not [attrs for _, attrs in tags if "style" in attrs]
    assert {"rel": "stylesheet", "href": "/static/graceful/admin.css"}.items() <= next(
        attrs for tag, attrs in tags if tag == "link" and "graceful" in (attrs.get("href") or "")
    ).items()


def test_numbers_in_attributes_are_no_matter_of_language(as_reader: Client) -> None:
    """Numbers in attributes have a decimal point in every language."""
    report = a_report()
    save(report)
    with override_settings(LANGUAGE_CODE="de", USE_THOUSAND_SEPARATOR=True):
        tags = Tags(as_reader.get(url_of(report)).content.decode()).found
    bars = [attrs for tag, attrs in tags if tag == "rect"]
    assert len(bars) == 8
    assert all(re.fullmatch(r"\d+\.\d\d%", attrs[name] or "") for attrs in bars for name in ("x", "width"))


# -- finding one of many ---------------------------------------------------------------------------------------------


@pytest.fixture
def many() -> None:
    save(
        a_clean_report(worker="one", hostname="web-1", release="r1", requested_at=MIDNIGHT + timedelta(days=1)),
        a_clean_report(worker="two", hostname="web-2", release="r2", requested_at=MIDNIGHT + timedelta(days=40)),
        a_report(worker="three", hostname="db-1", release="r2", requested_at=MIDNIGHT + timedelta(days=400)),
        a_report(
            worker="four",
            hostname="db-2",
            release="r3",
            reason=Reason.BURST,
            signal=None,
            requested_at=MIDNIGHT + timedelta(days=400, hours=1),
            jobs=JobTally(in_flight=(InFlightJob("the-job", "f", "q"),)),
        ),
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["four", "three", "two", "one"]),
        ("?outcome__exact=clean", ["two", "one"]),
        ("?outcome=clean", ["two", "one"]),
        ("?reason=burst", ["four"]),
        ("?signal=SIGTERM&outcome=clean", ["two", "one"]),
        ("?reason__exact=burst", ["four"]),
        ("?signal__exact=SIGTERM", ["three", "two", "one"]),
        ("?release=r2", ["three", "two"]),
        ("?hostname__exact=web-1", ["one"]),
        ("?happened_at__year=2026", ["two", "one"]),
        ("?happened_at__year=2026&happened_at__month=3", ["one"]),
        ("?happened_at__year=2026&happened_at__month=3&happened_at__day=3", []),
        ("?q=web", ["two", "one"]),
        ("?q=t", ["three", "two"]),
        ("?q=r2+web", ["two"]),
        ("?q=the-job", ["four"]),
        ("?q=the-jo", []),
        ("?q=eb-1", []),
        ("?q=%25", []),
        ("?q=%3Cscript%3E", []),
        ("?o=0", ["one", "two", "three", "four"]),
        ("?o=1.-2", ["four", "three", "two", "one"]),
    ],
)
def test_filters_search_and_order(as_reader: Client, many: None, query: str, expected: list[str]) -> None:
    """Filters, search and order find a report."""
    assert rows_shown(as_reader, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "?happened_at__year=9999",
        "?happened_at__year=no",
        "?happened_at__year=2026&happened_at__month=13",
        "?happened_at__year=2026&happened_at__month=",
        "?happened_at__month=3",
        "?notes__regex=(a%2B)%2B",
        "?hooks__error__contains=x",
        "?worker__contains=x",
        "?p=99999999999",
        "?q=%00",
        "?outcome__exact=a%00b",
        "?worker=a%00b",
        "?happened_at__day=99999999999999999999",
        "?happened_at__day=-1",
        "?happened_at__gte=0001-01-01T00:00:00%2B14:00",
        "?happened_at__lt=9999-12-31T23:59:59-14:00",
    ],
)
def test_odd_queries_are_refused(as_reader: Client, many: None, query: str) -> None:
    """Query strings outside the allowed lookups, or with values that no database takes, are refused."""
    assert as_reader.get(LIST + query, follow=True).status_code in (200, 400)
    assert as_reader.get(f"{LIST}export.json{query}").status_code in (200, 400)


def test_a_report_is_found_by_its_id(as_reader: Client) -> None:
    """Searching for a report's id finds it."""
    report = a_report()
    save(report, a_report())
    response = as_reader.get(LIST, {"q": report.id})
    assert [row.pk for row in response.context["cl"].result_list] == [report.id]


@pytest.mark.parametrize(
    ("query", "titles", "back"),
    [
        ("", ["2026", "2027"], None),
        ("?happened_at__year=2026", ["March 2026", "April 2026", "May 2026", "June 2026"], "All dates"),
        ("?happened_at__year=2027", ["January 2027", "February 2027", "March 2027", "April 2027"], "All dates"),
        ("?happened_at__year=2027&happened_at__month=4", [f"April {day}" for day in range(1, 6)], "2027"),
        ("?happened_at__year=2027&happened_at__month=4&happened_at__day=5", ["April 5"], "April 2027"),
    ],
)
def test_dates(as_reader: Client, many: None, query: str, titles: list[str], back: str | None) -> None:
    """The date hierarchy offers each year, month and day between the first report and the last."""
    dates = as_reader.get(LIST + query).context["cl"].dates
    shown = [link.title for link in dates["choices"]]
    assert shown[: len(titles)] == titles
    assert len(shown) == (10 if query == "?happened_at__year=2026" else len(titles))
    assert (dates["back"] and dates["back"].title) == back
    for link in dates["choices"]:
        assert as_reader.get(LIST + link.link).status_code == 200


def test_dates_of_a_single_month(as_reader: Client) -> None:
    """With reports of one month only, the date hierarchy offers its days at once."""
    save(a_report(), a_report(requested_at=MIDNIGHT + timedelta(days=2)))
    dates = as_reader.get(LIST).context["cl"].dates
    assert [link.title for link in dates["choices"]] == ["March 1", "March 2", "March 3"]
    assert as_reader.get(LIST + "?q=nothing").status_code == 200
    ArchivedReport.objects.all().delete()
    assert as_reader.get(LIST).context["cl"].dates == {"show": False}


# -- what it asks the database ---------------------------------------------------------------------------------------


def about_reports(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries.captured_queries if "graceful_" in query["sql"]]


def test_the_list_asks_as_often_for_many_as_for_one(as_reader: Client) -> None:
    """The list takes the same number of queries for many reports as for one."""
    counts = []
    for _ in range(2):
        save(*(a_report() for _ in range(20)))
        with CaptureQueriesContext(connection) as queries:
            assert len(rows_shown(as_reader)) >= 20
        counts.append(len(about_reports(queries)))
    # The count, the rows, the first and the last date; for the filters the newest, those with failed hooks, and these.
    assert counts == [7, 7]


def test_a_page_asks_as_often_for_many_hooks_as_for_one(as_reader: Client) -> None:
    """A page takes the same number of queries for many hooks as for one."""
    few = a_report(hooks=(), jobs=JobTally())
    hooks = tuple(HookResult(f"h{number}", HookOutcome.OK) for number in range(100))
    much = a_report(hooks=hooks, jobs=JobTally(in_flight=tuple(InFlightJob(f"j{n}", "f", "q") for n in range(100))))
    save(few, much)
    for report in (few, much):
        with CaptureQueriesContext(connection) as queries:
            as_reader.get(url_of(report))
        # The report, its hooks, its jobs, and the outcomes of those near it.
        assert len(about_reports(queries)) == 4


@pytest.mark.parametrize("query", ["", "?outcome__exact=clean", "?q=web", "?happened_at__year=2026", "?p=2", "?all="])
def test_nothing_counts_without_a_limit(as_reader: Client, query: str) -> None:
    """Every COUNT has a limit."""
    save(*(a_clean_report() for _ in range(60)))
    with CaptureQueriesContext(connection) as queries:
        rows_shown(as_reader, query)
    counts = [sql for sql in about_reports(queries) if "COUNT(" in sql]
    assert sum(f"LIMIT {change_list.COUNT_LIMIT + 1})" in sql for sql in counts) == 1
    assert all(re.search(r"LIMIT \d+\)", sql) and "ORDER BY" not in sql for sql in counts)
    assert not [sql for sql in about_reports(queries) if "DISTINCT" in sql or "GROUP BY" in sql]


def test_more_than_the_limit_is_said_to_be_more(as_reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the page says that there are more reports."""
    monkeypatch.setattr(change_list, "COUNT_LIMIT", 100)
    save(*(a_clean_report(hooks=(), jobs=JobTally()) for _ in range(101)))
    response = as_reader.get(LIST)
    assert response.context["cl"].result_count == 100
    assert "There are more" in response.content.decode()
    ArchivedReport.objects.first().delete()  # type: ignore[union-attr]
    assert "There are more" not in as_reader.get(LIST).content.decode()


def plan(sql: str) -> str:
    """The database's plan; PostgreSQL's as if the table were so large that reading all of it is out of the question."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE graceful_shutdownreport")
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("", "graceful_by_time"),
        ("?happened_at__year=2026&happened_at__month=3", "graceful_by_time"),
        ("?outcome__exact=killed", "graceful_by_outcome"),
        ("?reason__exact=burst", "graceful_by_reason"),
        ("?signal__exact=SIGINT", "graceful_by_signal"),
        ("?release__exact=r1", "graceful_by_release"),
        ("?hostname__exact=h1", "graceful_by_hostname"),
        ("?worker__exact=w1", "graceful_by_worker"),
    ],
)
def test_rows_come_out_of_an_index_in_their_order(as_reader: Client, query: str, index: str) -> None:
    """The list is read from an index, without a sort."""
    rows = []
    for number in range(600):
        report = a_clean_report(worker=f"w{number % 11}", hostname=f"h{number % 11}", release=f"r{number % 11}")
        row = rows_of(report).report
        row.happened_at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(hours=2 * number)
        row.outcome = Outcome.KILLED if number % 10 == 0 else Outcome.CLEAN
        row.reason, row.signal = (Reason.BURST, "SIGINT") if number % 8 == 0 else (Reason.SIGNAL, "SIGTERM")
        rows.append(row)
    ArchivedReport.objects.bulk_create(rows)
    with CaptureQueriesContext(connection) as queries:
        assert len(rows_shown(as_reader, query)) == 50
    (sql,) = [sql for sql in about_reports(queries) if sql.endswith("LIMIT 50")]
    assert index in plan(sql), plan(sql)
    assert not re.search("TEMP B-TREE|Sort", plan(sql)), plan(sql)


@pytest.mark.parametrize(
    ("moment", "zone"),
    [(datetime(1, 1, 1, tzinfo=UTC), "America/New_York"), (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "Asia/Tokyo")],
    ids=["first", "last"],
)
@pytest.mark.parametrize("use_tz", [True, False])
def test_a_report_at_an_end_of_the_calendar(admin_client: Client, moment: datetime, zone: str, use_tz: bool) -> None:
    """A stored report whose time has no local time is shown in the list and on its page."""
    with override_settings(TIME_ZONE=zone, USE_TZ=use_tz):
        rows = rows_of(a_report())
        for field in ("happened_at", "started_at", "requested_at", "drained_at", "ended_at"):
            setattr(rows.report, field, moment if use_tz else moment.replace(tzinfo=None))
        rows.report.save(force_insert=True)
        for path in (LIST, f"{LIST}{rows.report.pk}/change/", f"{LIST}{rows.report.pk}/export/"):
            assert admin_client.get(path).status_code == 200, path
        call_command("shutdown_report", "--last", stdout=StringIO())
