"""The page of trends in a real browser: drawn, light and dark, wide and narrow, and with hostile names."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from graceful.core.phases import HookOutcome, JobOutcome, Outcome
from graceful.core.records import HookResult, InFlightJob, JobTally, Spans
from graceful.models import Release
from tests.browser.accessibility import too_wide
from tests.browser.conftest import NewBrowser
from tests.browser.test_admin_pages import PAYLOAD, click, complaints, log_in, picture, reader, site, text
from tests.db.samples import a_clean_report, a_report
from tests.db.stored import save
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["reader", "site"]
PAGE = "/admin/graceful/shutdownrollup/"


def until_counted(browser: Chrome) -> None:
    """The page is shown before all reports are added up, and says so."""

    def counted() -> bool:
        browser.refresh()
        return "not counted yet" not in text(browser)

    wait_until(counted, 30)


@pytest.fixture
def months(reader: User) -> None:
    """90 days of deploys of four workers, some of which interrupt a job; a hook that gets slower."""
    chance, now, reports = random.Random(7), datetime.now(UTC), []
    for ago in range(90):
        label = f"2026.{(90 - ago) // 6 + 1}"
        if ago % 6 == 0:
            Release.objects.create(label=label, started_at=now - timedelta(days=ago))
        for worker in range(4):
            at = now - timedelta(days=ago, minutes=worker)
            slow = chance.random() * (90 - ago) / 60
            late = slow > 1.2
            hooks = (
                HookResult("shop.hooks.flush_counters", HookOutcome.OK, 0.04 + chance.random() / 9, 1.0),
                HookResult("shop.hooks.leave", HookOutcome.TIMED_OUT if late else HookOutcome.OK, min(1.2, slow), 1.2),
            )
            changes: dict[str, Any] = {"requested_at": at, "release": label, "hooks": hooks, "worker": f"w{worker}"}
            if chance.random() < 0.08:
                job = InFlightJob("1", "shop.jobs.rebuild", "q", JobOutcome.KILLED, 20.0, 1, "", at)
                changes |= {"outcome": Outcome.INTERRUPTED, "jobs": JobTally(3, 0, (job,)), "seconds": Spans(20, 1, 21)}
                reports.append(a_report(**changes))
            else:
                changes |= {"outcome": Outcome.HOOKS_FAILED if late else Outcome.CLEAN, "seconds": Spans(2.0, 1.0, 3.0)}
                reports.append(a_clean_report(**changes))
    save(*reports)


def test_from_the_index_to_the_trends(browser: Chrome, live_server: LiveServer, months: None) -> None:
    """Opening the page adds up what waits, draws it, and says it in words; a click on a hook shows it day by day."""
    log_in(browser, live_server)
    click(browser, browser.find_element(By.LINK_TEXT, "Trends"))
    click(browser, browser.find_element(By.LINK_TEXT, "90 days"))
    until_counted(browser)
    assert "of 360 shutdowns were clean." in text(browser)
    for words in ("Drain p99 is at least 20 s", "shop.jobs.rebuild (", "The hook shop.hooks.leave timed out"):
        assert words in text(browser)
    for kind in ("clean", "interrupted", "hooks_failed"):
        (shape,) = browser.find_elements(By.CSS_SELECTOR, f".graceful-chart .graceful-fill-{kind}")
        assert shape.rect["height"] > 1
    assert len(browser.find_elements(By.CSS_SELECTOR, ".graceful-chart .graceful-release-line")) == 15
    picture(browser, "trends")
    browser.find_element(By.TAG_NAME, "summary").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#graceful-days tbody tr")) == 90
    click(browser, browser.find_element(By.LINK_TEXT, "shop.hooks.leave"))
    assert "Exit hook shop.hooks.leave, day by day" in text(browser)
    picture(browser, "trends-hook")
    assert complaints(browser) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_narrow_screen(new_browser: NewBrowser, live_server: LiveServer, months: None, dark: bool) -> None:
    """At 390 px, light and dark, nothing pushes the page out of the window: wide tables scroll by themselves."""
    browser = new_browser(*(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []))
    log_in(browser, live_server)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.get(f"{live_server.url}{PAGE}?hook=shop.hooks.leave")
    until_counted(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    background = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (background == "rgba(18, 18, 18, 1)") is dark
    assert browser.find_element(By.CSS_SELECTOR, ".graceful-chart").rect["width"] > 250
    picture(browser, f"trends-narrow-{'dark' if dark else 'light'}", whole=False)
    assert complaints(browser) == []


def test_nothing_from_outside_runs(browser: Chrome, live_server: LiveServer, reader: User, settings: Any) -> None:
    """Markup in the names of hooks, functions and releases is shown as text and does not run."""
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]  # Without the policy's help.
    now = datetime.now(UTC)
    hook = HookResult(PAYLOAD + "x" * 200, HookOutcome.TIMED_OUT, 1.0, 1.0)
    job = InFlightJob("1", PAYLOAD + "y" * 500, "q", JobOutcome.KILLED, 20.0, 1, "", now)
    save(
        *(
            a_report(
                requested_at=now - timedelta(minutes=number),
                release=PAYLOAD,
                hooks=(hook,),
                jobs=JobTally(0, 0, (job,)),
            )
            for number in range(25)
        )
    )
    Release.objects.create(label=PAYLOAD, started_at=now)
    log_in(browser, live_server)
    browser.get(f"{live_server.url}{PAGE}")
    until_counted(browser)
    assert PAYLOAD in text(browser)
    click(browser, browser.find_element(By.CSS_SELECTOR, "#graceful-by-hook tbody a"))
    assert "day by day" in text(browser)
    assert "owned" not in browser.title
    assert browser.find_elements(By.CSS_SELECTOR, "img[src=x]") == []
    assert too_wide(browser) == []
