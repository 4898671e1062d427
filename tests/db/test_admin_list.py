"""The list of reports: its filters, its search whatever it finds, and the export of what it shows."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from graceful.admin import export, filters, search
from graceful.admin.last_report import unclean_counter
from graceful.core import report_json
from graceful.core.phases import HookOutcome, Outcome
from graceful.core.records import HookResult, InFlightJob, JobTally
from graceful.models import NAME_LENGTH, ReportKeyword
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive, sources
from tests.db.samples import MIDNIGHT, a_clean_report, a_report, save

pytestmark = pytest.mark.django_db

LIST = "/admin/graceful/shutdownreport/"


@pytest.fixture(autouse=True)
def no_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: False)
    monkeypatch.setattr(unclean_counter, "refresh", lambda: None)


def a_day(number: int) -> Any:
    return MIDNIGHT + timedelta(days=number)


def failed(*names: str) -> tuple[HookResult, ...]:
    return tuple(HookResult(name, HookOutcome.FAILED) for name in names)


@pytest.fixture
def some() -> None:
    save(
        a_clean_report(id="1", worker="w1", queues=("high", "low"), release="r1", hostname="a", requested_at=a_day(1)),
        a_clean_report(id="2", worker="w2", queues=("low",), release="r2", hostname="b", requested_at=a_day(2)),
        a_report(id="3", worker="w3", queues=("high",), hooks=failed("x", "y"), release="r2", requested_at=a_day(3)),
        a_report(id="4", queues=("high",), hooks=failed("y"), outcome=Outcome.FORCED, requested_at=a_day(4)),
    )


def ids(client: Client, query: str = "") -> list[str]:
    response = client.get(LIST + query)
    assert response.status_code == 200, response.headers.get("Location")
    return [row.pk for row in response.context["cl"].result_list]


def body(client: Client, address: str) -> str:
    response = client.get(LIST + address)
    assert response.status_code == 200
    return b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?queue=high", ["4", "3", "1"]),
        ("?queue=low", ["2", "1"]),
        ("?queue=nothing", []),
        ("?queue=hi", []),
        ("?failed_hook=y", ["4", "3"]),
        ("?failed_hook=x", ["3"]),
        ("?failed_hook=x&queue=high", ["3"]),
        ("?failed_hook=y&queue=low", []),
        ("?queue=high&outcome__exact=forced", ["4"]),
        ("?queue=high&outcome__exact=clean", ["1"]),
        ("?queue=high&outcome__exact=nonsense", []),
        ("?queue=high&o=0", ["1", "3", "4"]),
        ("?queue=high&happened_at__year=2026&happened_at__month=3&happened_at__day=4", ["3"]),
        ("?queue=high&q=w3", ["3"]),
        ("?release=r2", ["3", "2"]),
        ("?hostname=a", ["1"]),
        ("?release=r2&queue=low", ["2"]),
        ("?queue=", ["4", "3", "2", "1"]),
        ("?queue=a%00b", []),
    ],
)
def test_filters(admin_client: Client, some: None, query: str, expected: list[str]) -> None:
    """Each filter finds its reports, alone and with others, in the order of time."""
    assert ids(admin_client, query) == expected


def test_a_filter_by_hand_is_that_of_the_sidebar(admin_client: Client, some: None) -> None:
    """``?outcome=forced`` is short for ``?outcome__exact=forced``: the sidebar shows it as chosen, and leads away."""
    short, long = (
        admin_client.get(LIST + query).context["cl"] for query in ("?outcome=forced", "?outcome__exact=forced")
    )
    assert short.get_query_string() == long.get_query_string() == "?outcome__exact=forced"
    assert [list(spec.choices(short)) for spec in short.filter_specs] == [
        list(spec.choices(long)) for spec in long.filter_specs
    ]
    assert body(admin_client, "export.csv?outcome=forced") == body(admin_client, "export.csv?outcome__exact=forced")


def test_filters_offer_what_the_newest_reports_hold(admin_client: Client, some: None) -> None:
    """The sidebar offers the values of the newest reports, the most frequent first, and the chosen one."""
    specs = {
        spec.parameter_name: [value for value, _text in spec.lookup_choices]
        for spec in admin_client.get(LIST + "?hostname=long-gone").context["cl"].filter_specs
        if isinstance(spec, filters.RecentValues)
    }
    assert specs["queue"] == ["high", "low"]
    assert specs["failed_hook"] == ["x", "y"]
    assert sorted(specs["release"]) == ["2026.03.1", "r1", "r2"]
    assert specs["hostname"][-1] == "long-gone"


def test_a_filter_costs_no_more_for_more_reports(admin_client: Client, some: None) -> None:
    """The number of queries does not depend on how many queues, hosts, releases and hooks there are."""
    counts = []
    for round_ in range(2):
        save(
            *(
                a_report(queues=(f"q{round_}-{n}",), release=f"r{n}", hostname=f"h{n}", hooks=failed(f"k{n}"))
                for n in range(30)
            )
        )
        with CaptureQueriesContext(connection) as queries:
            ids(admin_client, "?queue=high")
        counts.append(len([query for query in queries.captured_queries if "graceful_" in query["sql"]]))
        assert not re.search("DISTINCT|GROUP BY", " ".join(query["sql"] for query in queries.captured_queries))
    assert counts == [7, 7]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("?queue=high", "graceful_by_keyword"),
        ("?failed_hook=y", "graceful_by_keyword"),
        ("?queue=high&outcome__exact=forced", "graceful_keyword_outcome"),
    ],
)
def test_keywords_are_read_in_the_order_of_the_list(
    admin_client: Client, query: str, index: str, django_assert_max_num_queries: Any
) -> None:
    """A filter by queue or hook reads its rows from one index, without a sort."""
    save(*(a_report(queues=("high",), hooks=failed("y"), requested_at=a_day(n)) for n in range(120)))
    save(*(a_report(queues=("high",), hooks=failed("y"), outcome=Outcome.FORCED) for _ in range(60)))
    with CaptureQueriesContext(connection) as queries:
        assert len(ids(admin_client, query)) == 50
    (sql,) = [query["sql"] for query in queries.captured_queries if query["sql"].endswith("LIMIT 50")]
    plan = plan_of(sql)
    assert index in plan, plan
    assert not re.search("TEMP B-TREE|Sort", plan), plan


def plan_of(sql: str) -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for switch in ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"):
                cursor.execute(f"SET LOCAL {switch} = off")
        cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_names_are_shortened(admin_client: Client) -> None:
    """A worker is shown by the first digits of RQ's name, the whole of it in the title."""
    name = "0be48186af554d0d9697287b88b4fe9f"
    save(a_report(worker=name))
    page = admin_client.get(LIST).content.decode()
    assert f'<span title="{name}">0be48186</span>' in page


# -- keywords --------------------------------------------------------------------------------------------------------


def test_keywords_go_with_their_report(db: None) -> None:
    """Removing old reports removes their keywords."""
    save(a_report(id="old", requested_at=a_day(-400)), a_report(id="new"))
    assert archive._delete(["old"], "default") == 1
    assert set(ReportKeyword.objects.values_list("report_id", flat=True)) == {"new"}


def test_a_report_may_go_before_its_keywords(admin_client: Client) -> None:
    """A worker of an earlier release removes a report without its keywords: the list shows what is left."""
    save(a_report(id="1", queues=("high",)), a_report(id="2", queues=("high",)))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM graceful_reportedhook")
        cursor.execute("DELETE FROM graceful_reportedjob")
        cursor.execute("DELETE FROM graceful_shutdownreport WHERE id = '1'")
    assert ids(admin_client, "?queue=high") == ["2"]


def test_long_and_double_names_are_stored_once() -> None:
    """A queue that is named twice, and one with a very long name, can be stored and found."""
    save(a_report(id="1", queues=("q", "q", "x" * 5000)))
    values = list(ReportKeyword.objects.filter(kind="queue").values_list("value", flat=True))
    assert len(values) == 2
    assert max(map(len, values)) <= NAME_LENGTH


def test_the_migration_adds_keywords_of_old_reports() -> None:
    """Reports that were stored before the table was there are found by queue and failed hook too."""
    save(*(a_report(id=f"{n:03}", queues=("q", "q", "p"), hooks=failed("x")) for n in range(5)))
    expected = set(ReportKeyword.objects.values_list("report_id", "kind", "value", "happened_at", "outcome"))
    ReportKeyword.objects.all().delete()
    migration = import_module("graceful.migrations.0003_list")
    migration.BATCH = 2
    migration.add_keywords(apps, type("Editor", (), {"connection": connection}))
    assert set(ReportKeyword.objects.values_list("report_id", "kind", "value", "happened_at", "outcome")) == expected
    assert len(expected) == 15


# -- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [(2000, 50_000), (3, 50_000), (3, 5)], ids=["few", "many", "most"])
@pytest.mark.parametrize("word", ["web", "web-1", "web-1.1", "r", "r2", "the-job", "id-7", "%", "_", "we_", "nothing"])
def test_the_search_finds_the_same_however_it_searches(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], word: str
) -> None:
    """Whether few, many or most reports match, a search finds exactly those, the newest first."""
    monkeypatch.setattr(search, "MOST_SORTED", limits[0])
    monkeypatch.setattr(search, "MOST_LOOKED_AT", limits[1])
    found = []
    for number in range(70):
        host, release = f"web-{number % 3}", f"r{number % 4}"
        jobs = JobTally(in_flight=(InFlightJob("the-job", "f", "q"),)) if number == 60 else JobTally()
        report = a_clean_report(
            id=f"id-{number}",
            worker=f"{host}.{number}",
            hostname=host,
            release=release,
            jobs=jobs,
            requested_at=a_day(number % 50),
        )
        save(report)
        names = (report.worker, host, release)
        if any(name.startswith(word) for name in names) or word == report.id or (jobs.in_flight and word == "the-job"):
            found.append((report.requested_at, report.id))
    expected = [report_id for _moment, report_id in sorted(found, reverse=True)]
    pages = [ids(admin_client, f"?q={word}&p={page}".replace("%", "%25")) for page in (1, 2)]
    shown = pages[0] if len(expected) <= 50 else pages[0] + pages[1]
    assert shown == expected


def test_a_search_of_many_takes_its_rows_in_the_order_of_time(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that most reports match is read in the order of time, without a sort."""
    monkeypatch.setattr(search, "MOST_SORTED", 10)
    monkeypatch.setattr(search, "MOST_LOOKED_AT", 20)
    save(*(a_clean_report(hooks=(), jobs=JobTally(), requested_at=a_day(n)) for n in range(120)))
    with CaptureQueriesContext(connection) as queries:
        assert len(ids(admin_client, "?q=web")) == 50
    (sql,) = [query["sql"] for query in queries.captured_queries if query["sql"].endswith("LIMIT 50")]
    assert "graceful_by_time" in plan_of(sql)


# -- export ----------------------------------------------------------------------------------------------------------


def test_the_csv_has_the_rows_of_the_list(admin_client: Client, some: None) -> None:
    """The CSV holds every report that the filters let through, the newest first, with its figures."""
    rows = list(csv.DictReader(io.StringIO(body(admin_client, "export.csv?queue=high&o=0"))))
    assert [row["id"] for row in rows] == ["4", "3", "1"]
    assert rows[1]["outcome"] == "hooks_failed"
    assert rows[2]["queues"] == "high, low"
    assert rows[0]["total_seconds"] == "14.25"
    assert rows[0]["requested_at"].startswith("2026-03-05T00:00:00")


def test_the_json_has_the_reports_of_the_list(admin_client: Client, some: None) -> None:
    """The JSON is a list of reports in their one JSON form."""
    reports = json.loads(body(admin_client, "export.json?failed_hook=x"))
    assert [report["id"] for report in reports] == ["3"]
    assert report_json.load(json.dumps(reports[0])).hooks == failed("x", "y")


@pytest.mark.parametrize("query", ["", "?queue=high", "?q=web", "?q=web&queue=high", "?outcome__exact=clean"])
@pytest.mark.parametrize("walk", [False, True])
def test_an_export_goes_on_where_a_piece_ended(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, query: str, walk: bool
) -> None:
    """All reports are exported once each, in pieces, those of the same time too."""
    monkeypatch.setattr(export, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(export, "RECORDS_AT_ONCE", 3)
    if walk:
        monkeypatch.setattr(search, "MOST_SORTED", 2)
    save(*(a_clean_report(id=f"{n:03}", queues=("high",), requested_at=a_day(n // 7)) for n in range(30)))
    expected = [f"{n:03}" for n in reversed(range(30))]
    rows = csv.DictReader(io.StringIO(body(admin_client, "export.csv" + query)))
    assert [row["id"] for row in rows] == expected
    assert [report["id"] for report in json.loads(body(admin_client, "export.json" + query))] == expected


def test_an_export_of_nothing(admin_client: Client) -> None:
    """Without a report the CSV is its head, and the JSON an empty list."""
    assert body(admin_client, "export.csv").count("\r\n") == 1
    assert json.loads(body(admin_client, "export.json")) == []


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "  =HYPERLINK(1)", "\t=1", "\r=1", "\n=1", '"=1', "a,b\n,c"]
)
def test_a_cell_is_no_formula(admin_client: Client, text: str) -> None:
    """No cell begins with what a spreadsheet takes for a formula, and a line break does not break a row."""
    save(a_report(id="r", worker=text, hostname=text, release=text, queues=(text,), signal=text[:8], notes=text))
    (row,) = csv.DictReader(io.StringIO(body(admin_client, "export.csv")))
    for column in ("worker", "hostname", "release", "queues", "signal", "notes"):
        assert not row[column].lstrip(" ").startswith(export.FORMULA), column
        assert row[column].isprintable()


@pytest.mark.parametrize("form", ["csv", "json"])
def test_an_export_needs_the_permission(client: Client, form: str) -> None:
    """An export is 403 without the view permission, a redirect to the login for strangers, and never a POST."""
    assert client.get(f"{LIST}export.{form}").status_code == 302
    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(f"{LIST}export.{form}").status_code == 403
    client.force_login(User.objects.create_superuser("super"))
    assert client.post(f"{LIST}export.{form}").status_code == 405
    assert client.get(f"{LIST}export.{form}?notes__regex=(a%2B)%2B").status_code == 400
    assert client.get(f"{LIST}export.{form}?happened_at__year=no").status_code == 400


def test_an_export_is_a_download(admin_client: Client, some: None) -> None:
    """An export is saved under a name, and no browser guesses its type."""
    response = admin_client.get(f"{LIST}export.csv")
    assert response.headers["Content-Disposition"] == 'attachment; filename="shutdowns.csv"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    page = admin_client.get(f"{LIST}?queue=high&p=1&o=1").content.decode()
    assert 'href="/admin/graceful/shutdownreport/export.csv?queue=high"' in page


def test_an_export_holds_no_lock(admin_client: Client, some: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a client reads slowly, reports can be stored."""
    monkeypatch.setattr(export, "ROWS_AT_ONCE", 2)
    rows = iter(admin_client.get(f"{LIST}export.csv").streaming_content)  # type: ignore[attr-defined]
    next(rows), next(rows)
    save(a_report(id="meanwhile", requested_at=a_day(-9)))
    assert len(list(rows)) == 4
    assert ArchivedReport.objects.count() == 5
