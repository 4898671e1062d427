"""The admin's pages in a real browser."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django.live_server_helper import LiveServer
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from graceful.core.phases import HookOutcome, JobOutcome
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, ShutdownReport
from graceful.reports import archive
from graceful.reports.spool import Spool
from tests.browser.conftest import NewBrowser
from tests.db.samples import MIDNIGHT, a_clean_report, a_report
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

POLICY = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:"
PAYLOAD = "\"'><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class StrictPolicy:
    """Middleware: the Content-Security-Policy of a careful site; a page that needs more is broken under it."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        response = self.get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response


@pytest.fixture(autouse=True)
def site(settings: Any, tmp_path: Path) -> None:
    """A site with that policy; no Redis, and a spool of its own."""
    settings.MIDDLEWARE = [f"{__name__}.StrictPolicy", *settings.MIDDLEWARE]
    settings.RQ_QUEUES = {}
    settings.GRACEFUL_SPOOL_DIR = str(tmp_path / "spool")


@pytest.fixture
def reader() -> User:
    user = User.objects.create_user("reader", password="secret", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_shutdownreport"))
    return user


def log_in(browser: Chrome, server: LiveServer, name: str = "reader") -> None:
    browser.get(f"{server.url}/admin/")
    browser.find_element(By.NAME, "username").send_keys(name)
    browser.find_element(By.NAME, "password").send_keys("secret")
    click(browser, browser.find_element(By.CSS_SELECTOR, "[type=submit]"))


def click(browser: Chrome, element: WebElement) -> None:
    """Click what leads to another page, and wait until that is there."""
    page = browser.find_element(By.TAG_NAME, "html")
    element.click()
    wait_until(lambda: browser.find_element(By.TAG_NAME, "html") != page, 20, "another page")
    wait_until(lambda: browser.execute_script("return document.readyState") == "complete", 20, "a complete page")


def text(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def complaints(browser: Chrome) -> list[str]:
    """What the browser's console says of our own files and of scripts; Django's own pages are not ours to mend."""
    return [entry["message"] for entry in browser.get_log("browser") if "graceful" in entry["message"]]


def picture(browser: Chrome, name: str, *, whole: bool = True) -> None:
    """Save the page, whole or as the window shows it, as a picture where SCREENSHOTS says so, for people to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        if whole:
            height = browser.execute_script("return Math.max(600, document.documentElement.scrollHeight)")
            browser.set_window_size(1280, min(int(height) + 100, 4000))
        browser.save_screenshot(f"{folder}/{name}.png")


def store(*reports: ShutdownReport) -> None:
    for report in reports:
        assert archive.store(report, seconds=10)


def test_from_the_index_to_the_last_report_in_one_click(browser: Chrome, live_server: LiveServer, reader: User) -> None:
    """The newest report is one click from the admin's index."""
    store(a_clean_report(worker="older.1"), a_report(worker="newest.1", requested_at=MIDNIGHT + timedelta(days=1)))
    log_in(browser, live_server)
    picture(browser, "index")
    click(browser, browser.find_element(By.LINK_TEXT, "Last shutdown report"))
    page = text(browser)
    assert "newest.1" in page
    for fact in ("hooks failed", "flush statistics", "flushed 312 counters", "timed out", "shop.jobs.rebuild_index"):
        assert fact in page
    assert "shop/hooks.py" not in page
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    assert "shop/hooks.py" in text(browser)
    picture(browser, "report")
    assert complaints(browser) == []


def test_the_timeline_is_drawn(browser: Chrome, live_server: LiveServer, reader: User) -> None:
    """The bars of the timeline have a width and a colour."""
    store(a_report())
    log_in(browser, live_server)
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/last/")
    bars = browser.find_elements(By.CSS_SELECTOR, ".graceful-timeline rect")
    widths = [bar.rect["width"] for bar in bars]
    assert len(widths) == 8
    assert all(width > 0 for width in widths)
    drain, hooks = widths[0], widths[3]
    assert drain / hooks == pytest.approx(12.5 / 1.5, rel=0.05)
    assert len({bar.value_of_css_property("fill") for bar in bars}) >= 4
    badge = browser.find_element(By.CSS_SELECTOR, ".graceful-summary .graceful-badge")
    assert badge.value_of_css_property("background-color") == "rgba(186, 33, 33, 1)"


LONG_NAMES = (
    "graceful.hooks.builtin.close_database_connections",
    "shop.warehouse.hooks.leave_the_cluster_in_good_order",
)


def resize(browser: Chrome, width: int) -> None:
    """A window may not get so narrow: what the page sees of it can."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def sticking_out(browser: Chrome) -> list[str]:
    """Elements of our page that reach beyond the window."""
    found: list[str] = browser.execute_script(
        "const wide = document.documentElement.clientWidth + 0.5;"
        "return [...document.querySelectorAll('#content-main, #content-main *')]"
        ".filter(each => each.getBoundingClientRect().right > wide).map(each => each.outerHTML.slice(0, 80))"
    )
    return found


def test_the_page_in_a_narrow_window(browser: Chrome, live_server: LiveServer, reader: User) -> None:
    """At 390 pixels nothing sticks out, bars keep their width, and names are broken at their joints only."""
    hooks = tuple(HookResult(name, HookOutcome.FAILED, 1.0, 1.0, error="OSError: no") for name in LONG_NAMES)
    store(a_report(hooks=hooks, grace=Grace(25.0, 5.0, 3.0), worker="0be48186af554d0d9697287b88b4fe9f"))
    log_in(browser, live_server)
    resize(browser, 390)
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/last/")
    assert sticking_out(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.execute_script("return document.documentElement.scrollHeight") < 3600
    assert all(track.rect["width"] > 150 for track in browser.find_elements(By.CSS_SELECTOR, ".graceful-track svg"))
    for heading in browser.find_elements(By.CSS_SELECTOR, ".graceful-rows th[scope=row]"):
        assert heading.rect["height"] < 80, heading.text
    assert len(browser.find_elements(By.CSS_SELECTOR, "line.graceful-limit-deadline")) > 0
    picture(browser, "narrow", whole=False)
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_no_column_is_squeezed(browser: Chrome, live_server: LiveServer, reader: User, width: int) -> None:
    """No cell of a table is so narrow that its text goes one letter a line."""
    store(a_report(hooks=tuple(HookResult(name, HookOutcome.OK, 1.0, detail=name) for name in LONG_NAMES)))
    log_in(browser, live_server)
    resize(browser, width)
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/last/")
    for cell in browser.find_elements(By.CSS_SELECTOR, ".graceful-report th, .graceful-report td"):
        if cell.text.strip():
            assert cell.rect["width"] >= 30, cell.text
            assert cell.rect["height"] < 150, cell.text
    assert sticking_out(browser) == []


def test_the_list_shows_what_matters_at_1280(browser: Chrome, live_server: LiveServer, reader: User) -> None:
    """With the sidebar open, outcome, reason, release, queues and worker are within a window of 1,280 pixels."""
    store(
        *(
            a_clean_report(
                worker=f"0be48186af554d0d9697287b88b4fe{number:02}",
                hostname=f"worker-7f9c6d5b8-x{number}k2p",
                release="release-2026.11.24-3",
                queues=("default", "mail", "low-priority"),
                requested_at=MIDNIGHT + timedelta(days=number),
            )
            for number in range(3)
        )
    )
    log_in(browser, live_server)
    resize(browser, 1280)
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/")
    results = browser.find_element(By.CSS_SELECTOR, ".results").rect
    for column in ("time", "outcome_badge", "reason_word", "release_label", "queue_names", "worker_name"):
        cell = browser.find_element(By.CSS_SELECTOR, f"#result_list tbody .field-{column}").rect
        assert cell["x"] + cell["width"] <= results["x"] + results["width"], column
    row = browser.find_element(By.CSS_SELECTOR, "#result_list tbody tr")
    assert row.rect["height"] < 90
    assert "0be48186\n" in row.text or "0be48186 " in row.text
    picture(browser, "list-1280", whole=False)


def test_the_list_leads_to_a_report(browser: Chrome, live_server: LiveServer, reader: User) -> None:
    """Filter, search and date of the list lead to a report."""
    store(
        *(
            a_clean_report(worker=f"web-1.{number}", requested_at=MIDNIGHT + timedelta(days=number))
            for number in range(1, 60)
        ),
        a_report(worker="web-2.7", hostname="web-2", requested_at=MIDNIGHT),
    )
    log_in(browser, live_server)
    click(browser, browser.find_element(By.LINK_TEXT, "Shutdown reports"))
    picture(browser, "list", whole=False)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")) == 50
    browser.find_element(By.NAME, "q").send_keys("web-2")
    click(browser, browser.find_element(By.CSS_SELECTOR, "#changelist-search [type=submit]"))
    (row,) = browser.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")
    assert "hooks failed" in row.text
    assert "1/3" in row.text
    click(browser, row.find_element(By.LINK_TEXT, "web-2.7"))
    assert "The scheduler had to be killed." in text(browser)
    assert complaints(browser) == []


def test_a_report_that_waits_is_there_when_the_page_opens(
    browser: Chrome, live_server: LiveServer, reader: User, tmp_path: Path
) -> None:
    """A report that still waits in Redis is shown when the page opens."""
    Spool(tmp_path / "spool").write(a_report(worker="stranded.1"))
    log_in(browser, live_server)
    click(browser, browser.find_element(By.LINK_TEXT, "Last shutdown report"))
    assert "stranded.1" in text(browser)


def test_nothing_from_outside_runs(browser: Chrome, live_server: LiveServer, reader: User, settings: Any) -> None:
    """Markup in the names of jobs is shown as text and does not run."""
    # Without the policy's help.
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    job = InFlightJob(PAYLOAD, PAYLOAD, PAYLOAD, JobOutcome.KILLED, stack=f"</pre>{PAYLOAD}")
    hook = HookResult(PAYLOAD, HookOutcome.FAILED, detail=PAYLOAD, error=PAYLOAD, traceback=f"</details>{PAYLOAD}")
    hostile = a_report(
        worker=PAYLOAD,
        hostname=PAYLOAD,
        release=PAYLOAD,
        queues=(PAYLOAD,),
        worker_class=PAYLOAD,
        notes=PAYLOAD,
        jobs=JobTally(in_flight=(job,)),
        hooks=(hook, HookResult("\u202eesrever\u0007", HookOutcome.OK, detail="long " + "x" * 5000)),
    )
    store(hostile)
    log_in(browser, live_server)
    for address in ("", "last/", f"?q={PAYLOAD}"):
        browser.get(f"{live_server.url}/admin/graceful/shutdownreport/{address}")
        assert browser.title != "owned"
        assert browser.find_elements(By.CSS_SELECTOR, "img[src=x]") == []
        with pytest.raises(NoAlertPresentException):
            _ = browser.switch_to.alert.text
        wide = browser.execute_script("return document.documentElement.scrollWidth > window.innerWidth + 1")
        assert address == "" or not wide, "a long text pushes the page out of the window"
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/last/")
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    assert PAYLOAD in text(browser)
    assert "\\u202eesrever\\x07" in text(browser)
    assert browser.title != "owned"
    picture(browser, "hostile")


def test_without_the_permission_there_is_nothing(browser: Chrome, live_server: LiveServer) -> None:
    """Without the permission there is no link and no page."""
    store(a_report(worker="hidden.1"))
    User.objects.create_user("other", password="secret", is_staff=True)
    log_in(browser, live_server, "other")
    assert browser.find_elements(By.LINK_TEXT, "Last shutdown report") == []
    for address in ("shutdownreport/", "shutdownreport/last/", "lastshutdownreport/"):
        browser.get(f"{live_server.url}/admin/graceful/{address}")
        assert "403 Forbidden" in text(browser)
        assert "hidden.1" not in browser.page_source


def test_dark_mode(new_browser: NewBrowser, live_server: LiveServer, reader: User) -> None:
    """Text and background differ in dark mode."""
    browser = new_browser("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    store(a_report())
    log_in(browser, live_server)
    browser.get(f"{live_server.url}/admin/graceful/shutdownreport/last/")
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        summary.click()
    background = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert background == "rgba(18, 18, 18, 1)"
    trace = browser.find_element(By.TAG_NAME, "pre")
    assert trace.value_of_css_property("background-color") == "rgba(33, 33, 33, 1)"
    picture(browser, "dark")
