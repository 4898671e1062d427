"""The page of one report: what stands first, links to jobs, its neighbours; and which report is "the last"."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.templatetags.admin_modify import submit_row
from django.contrib.auth.models import User
from django.db import connection
from django.template import Context
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse
from django.utils.translation import override

from graceful.admin.last_report import unclean_counter
from graceful.admin.read_only import form_context
from graceful.core.phases import HookOutcome, JobOutcome, Outcome
from graceful.core.records import HookResult, InFlightJob, JobTally, utc_now
from graceful.models import RecentlyUnclean
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import sources
from graceful.templatetags.graceful_pages import breakable
from tests.db.samples import MIDNIGHT, a_clean_report, a_report, save

pytestmark = pytest.mark.django_db

LAST = "/admin/graceful/shutdownreport/last/"
ONE_O_CLOCK = MIDNIGHT + timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.page_archiver, "run", lambda seconds, reap: False)
    monkeypatch.setattr(RecentlyUnclean, "count", 0)
    unclean_counter.forget()


def page_of(client: Client, report_id: str) -> str:
    response = client.get(reverse("admin:graceful_shutdownreport_change", args=(report_id,)))
    assert response.status_code == 200
    return response.content.decode().replace("<wbr>", "")


def test_what_went_wrong_comes_first(admin_client: Client) -> None:
    """Explanation, notes, story and remedies come before the timeline; failed hooks before those that succeeded."""
    save(a_report(id="r"))
    page = page_of(admin_client, "r")
    places = [
        page.index(text)
        for text in (
            "At least one exit hook failed or timed out.",
            "The scheduler had to be killed.",
            "What happened",
            "What to do",
            "Timeline",
            "Interrupted jobs",
            "Exit hooks that went wrong",
            "Worker class",
            "Jobs that ended by themselves",
            "Exit hooks that succeeded or were skipped",
        )
    ]
    assert places == sorted(places)


def test_a_clean_page_has_no_room_for_trouble(admin_client: Client) -> None:
    """A clean report has neither a section of interrupted jobs nor one of remedies."""
    save(a_clean_report(id="r"))
    page = page_of(admin_client, "r")
    for heading in ("Interrupted jobs", "Exit hooks that went wrong", "What to do", "Notes"):
        assert heading not in page


def test_the_title_tells_reports_apart(admin_client: Client) -> None:
    """The title has the short name of the worker, the time and the outcome."""
    save(a_clean_report(id="r", worker="0be48186af554d0d9697287b88b4fe9f"))
    (title,) = re.findall("<title>([^<]*)</title>", page_of(admin_client, "r"))
    assert title.startswith("Worker 0be48186, 2026-03-01 01:00:00: clean")


def test_a_killed_worker_was_last_seen(admin_client: Client) -> None:
    """The end of a killed worker is called what it is, its last heartbeat."""
    save(
        a_report(id="r", outcome=Outcome.KILLED, exit_code=None, notes="last heartbeat 2026-03-01; closed by worker w"),
        a_report(id="unseen", outcome=Outcome.KILLED, exit_code=None, notes="closed by worker w"),
    )
    page = page_of(admin_client, "r")
    assert ">Last seen alive<" in page
    assert "another process closed this report" in page
    assert ">Ended<" not in page
    assert ">Found dead<" in page_of(admin_client, "unseen")


def test_every_table_has_a_caption(admin_client: Client) -> None:
    """Each table of the page has a caption."""
    save(a_report(id="r"))
    page = page_of(admin_client, "r")
    ours = page[page.index('id="content-main"') :]
    assert len(re.findall("<table", ours)) == 7
    assert len(re.findall(r"<table[^>]*>\s*<caption>\s*[^<\s]", ours)) == 7


def test_progress_is_shown(admin_client: Client) -> None:
    """How far a job had got stands in its row."""
    job = InFlightJob("j", "f", "default", JobOutcome.INTERRUPTED, progress_done=39, progress_total=200)
    save(a_report(id="r", jobs=JobTally(in_flight=(job,))))
    assert "39 of 200" in page_of(admin_client, "r")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("shop.jobs.send_mail", "shop.<wbr>jobs.<wbr>send_<wbr>mail"),
        ("<b>.x", "&lt;b&gt;.<wbr>x"),
        ("a.<script>", "a.&lt;script&gt;"),
        ("after 1.50 s", "after 1.50 s"),
        ("", ""),
    ],
)
def test_names_break_at_their_joints(text: str, html: str) -> None:
    """A name may be broken after a dot or underscore, and is escaped."""
    assert breakable(text) == html


# -- links to jobs ---------------------------------------------------------------------------------------------------


def test_a_job_links_to_its_page(admin_client: Client, settings: Any) -> None:
    """An id links to the job in django-rq's pages in the admin, under the index of its queue."""
    settings.RQ_QUEUES = {"mail": {"URL": "redis://x"}, "default": {"URL": "redis://x"}}
    save(a_report(id="r"))
    page = page_of(admin_client, "r")
    assert 'href="/admin/django_rq/dashboard/queues/0/job-1/"' in page
    assert 'href="/admin/django_rq/dashboard/queues/1/job-2/"' in page


@pytest.mark.parametrize(
    ("job_id", "queue"), [("job-1", "not-configured"), ("with/slash", "default"), ("", "default"), (".", "")]
)
def test_a_job_without_a_page_has_no_link(admin_client: Client, settings: Any, job_id: str, queue: str) -> None:
    """A job of an unknown queue, or with an id that no address can hold, is shown without a link."""
    settings.RQ_QUEUES = {"default": {"URL": "redis://x"}}
    save(a_report(id="r", jobs=JobTally(in_flight=(InFlightJob(job_id, "f", queue),))))
    assert "/queues/" not in page_of(admin_client, "r")


def test_links_under_urls_of_the_site(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without django-rq in the admin, the link is that of ``include("django_rq.urls")``; without both there is none."""
    from graceful.admin import job_links

    save(a_report(id="r"))
    monkeypatch.setattr(job_links, "VIEWS", job_links.VIEWS[1:])
    assert 'href="/django-rq/queues/' in page_of(admin_client, "r")
    monkeypatch.setattr(job_links, "VIEWS", ("nowhere:job_detail",))
    assert "job-1" in page_of(admin_client, "r")
    assert "/queues/" not in page_of(admin_client, "r")


# -- the last one, and its neighbours --------------------------------------------------------------------------------


def last(client: Client) -> str:
    return client.get(LAST).headers["Location"].split("/")[-3]


def test_a_clean_report_does_not_hide_a_killed_one(admin_client: Client) -> None:
    """The last report is the worst of the last ten minutes, not the burst worker that closed it."""
    save(
        a_clean_report(id="newest", requested_at=ONE_O_CLOCK),
        a_report(id="hooks", requested_at=ONE_O_CLOCK - timedelta(minutes=1)),
        a_report(id="killed", outcome=Outcome.KILLED, requested_at=ONE_O_CLOCK - timedelta(minutes=9)),
        a_report(id="older", outcome=Outcome.KILLED, requested_at=ONE_O_CLOCK - timedelta(minutes=9, seconds=30)),
    )
    assert last(admin_client) == "killed"


def test_an_old_kill_is_not_the_last_report(admin_client: Client) -> None:
    """What happened more than ten minutes before the newest report is another story."""
    save(
        a_clean_report(id="newest", requested_at=ONE_O_CLOCK),
        a_report(id="killed", outcome=Outcome.KILLED, requested_at=ONE_O_CLOCK - timedelta(minutes=11)),
    )
    assert last(admin_client) == "newest"


def test_the_neighbours_are_counted_and_listed(admin_client: Client) -> None:
    """A page says what the shutdowns within ten minutes were, and links to the list of them."""
    save(
        a_clean_report(id="one", requested_at=ONE_O_CLOCK),
        a_clean_report(id="two", requested_at=ONE_O_CLOCK + timedelta(minutes=3)),
        a_report(id="bad", outcome=Outcome.KILLED, requested_at=ONE_O_CLOCK - timedelta(minutes=3)),
        a_report(id="far", requested_at=ONE_O_CLOCK + timedelta(minutes=30)),
    )
    page = page_of(admin_client, "one")
    assert "2 other shutdowns within 10 minutes; with this one: 1 killed, 2 clean." in page
    (link,) = re.findall(r'<a href="([^"]+)">Show them', page)
    shown = admin_client.get(link.replace("&amp;", "&"))
    assert [row.pk for row in shown.context["cl"].result_list] == ["two", "one", "bad"]
    assert "other shutdown" not in page_of(admin_client, "far")


def test_the_index_counts_unclean_shutdowns(admin_client: Client, client: Client) -> None:
    """The row in the index says how many shutdowns of the last day were unclean; nobody else is told."""
    assert ">Last shutdown report</a>" in admin_client.get("/admin/").content.decode()
    save(
        a_report(requested_at=utc_now() - timedelta(hours=1)),
        a_report(requested_at=utc_now() - timedelta(hours=2), outcome=Outcome.KILLED),
        a_clean_report(requested_at=utc_now() - timedelta(hours=3)),
        a_report(requested_at=utc_now() - timedelta(hours=25)),
    )
    unclean_counter.forget()
    assert ">Last shutdown report (2 unclean in 24 h)</a>" in admin_client.get("/admin/").content.decode()
    client.force_login(User.objects.create_user("other", is_staff=True))
    assert "unclean" not in client.get("/admin/").content.decode()


def test_the_index_is_there_before_the_tables(admin_client: Client) -> None:
    """A count that the database refuses does not take the admin's index away."""
    with connection.schema_editor() if connection.vendor != "sqlite" else connection.cursor() as editor:
        editor.execute("ALTER TABLE graceful_shutdownreport RENAME TO graceful_gone")
    assert admin_client.get("/admin/").status_code == 200


def test_the_count_is_asked_for_now_and_then(admin_client: Client) -> None:
    """Of many pages with the row, one asks the database."""
    admin_client.get("/admin/")
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            admin_client.get("/admin/")
    assert not [query for query in queries.captured_queries if "graceful_" in query["sql"]]


def test_the_words_are_translatable(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome, story and labels of the page go through gettext."""
    from django.utils.translation import trans_real

    save(a_report(id="r", jobs=JobTally(), hooks=(HookResult("h", HookOutcome.OK, 1.0),)))
    words = {"hooks failed": "HAKEN", "Drain": "LEEREN", "signal": "ZEICHEN", "No job was in flight.": "KEINER."}
    with override("de"):
        catalog = trans_real.translation("de")
        monkeypatch.setattr(catalog, "gettext", lambda message: words.get(message, message))
        with override_settings(LANGUAGE_CODE="de"):
            page = page_of(admin_client, "r")
    for word in words.values():
        assert word in page


# -- another theme ---------------------------------------------------------------------------------------------------

UNFOLD = """
import django, json, sys
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from graceful.reports import sources
from tests.db.samples import a_report, save

call_command("migrate", verbosity=0)
sources.page_archiver.run = lambda seconds, reap=None: False
save(a_report(id="r"))
client = Client()
client.force_login(User.objects.create_superuser("a"))
found = {}
for address in json.loads(sys.argv[1]):
    response = client.get(address)
    found[address] = [response.status_code, response.content.decode()]
print(json.dumps(found))
"""


def test_the_context_is_enough_for_a_row_of_buttons() -> None:
    """A theme may show the buttons of Django's change form: it finds all that they ask for, and shows none to save."""
    row = submit_row(Context(form_context(site.get_model_admin(ArchivedReport))))  # type: ignore[arg-type]
    assert not any(row[name] for name in ("show_save", "show_save_as_new", "show_delete_link", "can_change"))


def test_the_pages_under_django_unfold() -> None:
    """Index, list and the pages of report and deploy work where django-unfold has replaced the admin's templates."""
    from django.conf import settings

    addresses = ["/admin/", "/admin/graceful/shutdownreport/", "/admin/graceful/shutdownreport/r/change/"]
    addresses.append("/admin/graceful/lastdeploy/")
    changes = json.dumps({"INSTALLED_APPS": ["unfold", *settings.INSTALLED_APPS]})
    done = subprocess.run(
        [sys.executable, "-c", UNFOLD, json.dumps(addresses)],
        env={
            **{key: value for key, value in os.environ.items() if key != "DATABASE_URL"},
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TEST_GRACEFUL_SETTINGS": changes,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = json.loads(done.stdout)
    assert [pages[address][0] for address in addresses] == [200, 200, 200, 200]
    index, the_list, page, deploy = (pages[address][1].replace("<wbr>", "") for address in addresses)
    assert "Last shutdown report" in index
    assert "hooks failed" in the_list
    assert "export.csv" in the_list
    assert "unfold/css" in page
    assert "shop.jobs.rebuild_index" in page
    assert "What to do" in page
    assert "0 of 1 worker ended cleanly." in deploy
