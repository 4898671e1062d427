"""Reports of recycled workers in the database: stored as earlier releases know them, shown as what they are."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from graceful.admin.last_report import unclean_counter
from graceful.core.phases import Reason
from graceful.core.records import PeakMemory
from graceful.memory import MEGABYTE
from graceful.models import ShutdownReport, ShutdownRollup
from graceful.reports import sources
from graceful.reports.deploys.rows import Living, last_material
from graceful.reports.page import report_page
from graceful.reports.rollup import roll_up
from graceful.reports.rows import record_of, rows_of
from graceful.reports.text import report_text
from tests.db.samples import a_clean_report, a_report, save

pytestmark = pytest.mark.django_db

LIST = "/admin/graceful/shutdownreport/"


@pytest.fixture(autouse=True)
def no_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: False)
    monkeypatch.setattr(unclean_counter, "refresh", lambda: None)


@pytest.fixture
def some() -> None:
    unasked: dict[str, Any] = {"signal": None}
    save(
        a_clean_report(id="1", reason=Reason.MEMORY, **unasked),
        a_clean_report(id="2", reason=Reason.AGE, **unasked),
        a_clean_report(id="3", reason=Reason.MAX_JOBS, **unasked),
        a_report(id="4"),
    )


def found(client: Client, query: str) -> set[str]:
    return {row.pk for row in client.get(LIST + query).context["cl"].result_list}


def test_the_column_has_a_reason_of_the_first_release(some: None) -> None:
    """An earlier release reads each row; this one puts reason and recycling together."""
    assert [row.reason for row in ShutdownReport.objects.order_by("pk")] == [
        "max_jobs",
        "max_jobs",
        "max_jobs",
        "signal",
    ]
    reasons = [record_of(row).reason for row in ShutdownReport.objects.order_by("pk")]
    assert reasons == [Reason.MEMORY, Reason.AGE, Reason.MAX_JOBS, Reason.SIGNAL]


def test_the_list_filters_by_what_a_worker_was_recycled_for(admin_client: Client, some: None) -> None:
    """The list says memory or age, and finds them; the word "max jobs" finds all that earlier releases call so."""
    assert found(admin_client, "?recycled__exact=memory") == found(admin_client, "?recycled=memory") == {"1"}
    assert found(admin_client, "?recycled=age") == {"2"}
    assert found(admin_client, "?reason=max_jobs") == {"1", "2", "3"}
    words = [row.get_recycled_display() for row in ShutdownReport.objects.order_by("pk")]
    assert words == ["memory", "age", None, None]
    page = admin_client.get(LIST).content.decode()
    assert '<td class="field-reason_word">memory</td>' in page
    assert '<td class="field-reason_word">age</td>' in page


def test_the_trends_count_them_by_their_own_reason(some: None) -> None:
    """Roll-ups, and so Prometheus, tell memory and age from max jobs."""
    roll_up(seconds=5)
    assert sorted(ShutdownRollup.objects.values_list("reason", "count")) == [
        ("age", 1),
        ("max_jobs", 1),
        ("memory", 1),
        ("signal", 1),
    ]


def test_a_recycled_worker_is_no_part_of_a_deploy(some: None) -> None:
    """It is counted apart, by its own reason."""
    material = last_material(Living(), a_report().ended_at)  # type: ignore[arg-type]
    assert material is not None
    assert [each.id for each in material.ended] == ["4"]
    assert material.apart == {"memory": 1, "age": 1, "max_jobs": 1}


def test_page_and_text_show_the_peaks() -> None:
    """The most memory of worker and horse stand on the page and in the text; what is not known is not shown."""
    report = a_clean_report(reason=Reason.MEMORY, signal=None, peak=PeakMemory(120 * MEGABYTE, 480 * MEGABYTE))
    facts = {fact.label: fact.value for fact in report_page(report).facts}
    assert facts["Peak memory"] == "120 MB"
    assert facts["Peak memory of a job's process"] == "480 MB"
    assert report_page(report).story[0].startswith("The worker had reached its limit of memory at ")
    assert "memory    at most 120 MB, and 480 MB in a work horse" in report_text(report)
    assert "  reason    memory\n" in report_text(report)
    unknown = report._replace(reason=Reason.AGE, peak=PeakMemory())
    assert not [fact for fact in report_page(unknown).facts if "memory" in fact.label]
    assert report_page(unknown).story[0].startswith("The worker had reached its maximum age at ")
    assert "at most" not in report_text(unknown)
    assert "at most 3 MB\n" in report_text(report._replace(peak=PeakMemory(3 * MEGABYTE)))


def test_the_csv_has_them_at_its_end(admin_client: Client, some: None) -> None:
    """A program that reads the columns by number finds the earlier ones where they were."""
    text = b"".join(admin_client.get(LIST + "export.csv?recycled=memory").streaming_content).decode()  # type: ignore[attr-defined]
    head, row = csv.reader(io.StringIO(text))
    assert head[-4:] == ["notes", "recycled", "peak_bytes", "horse_peak_bytes"]
    assert row[-3:] == ["memory", str(120 * MEGABYTE), str(480 * MEGABYTE)]


def test_a_worker_of_an_earlier_release_inserts_without_the_new_columns() -> None:
    """A row that does not name them is inserted, and read as of a worker that was not recycled."""
    row = rows_of(a_clean_report(id="old", reason=Reason.MAX_JOBS)).report
    new = {"recycled", "peak_bytes", "horse_peak_bytes", "rolled_up"}
    fields = [field for field in row._meta.concrete_fields if field.name not in new]
    values = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {row._meta.db_table} ({columns}) VALUES ({places})", values)
    record = record_of(ShutdownReport.objects.get(pk="old"))
    assert (record.reason, record.peak) == (Reason.MAX_JOBS, PeakMemory())
