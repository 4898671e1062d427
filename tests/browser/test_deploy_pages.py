"""The page of a deploy in a real browser, under a strict content security policy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from graceful.core.records import Grace, utc_now
from graceful.reports.deploys.rows import Living
from graceful.worker.cluster import deploy_now
from tests.browser.test_admin_pages import log_in, reader, site
from tests.db.test_deploy_pages import LAST, Fleet, living, save, stopped
from tests.support.waiting import wait_until

__all__ = ["reader", "site"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = Fleet()
    monkeypatch.setattr(deploy_now, "page_fleet", fleet)
    monkeypatch.setattr(deploy_now, "where_now", lambda jobs, seconds: tuple(jobs))
    return fleet


def errors(browser: Chrome) -> list[str]:
    log: Any = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if "favicon" not in entry["message"]]


def test_it_follows_a_deploy_and_ends(browser: Chrome, live_server: LiveServer, reader: User, fleet: Fleet) -> None:
    """The page replaces its main part by itself while the deploy is under way, and stops when all is over."""
    asked = utc_now() - timedelta(seconds=3)
    since = {
        "requested_at": asked,
        "drained_at": asked + timedelta(seconds=1),
        "ended_at": asked + timedelta(seconds=2),
    }
    save([stopped(0)._replace(**since)])
    fleet.living = Living(
        (living(1, "1", requested_at=asked, phase="draining", grace=Grace(25.0, 5.0, 3.0)), living(2))
    )
    log_in(browser, live_server)
    browser.get(live_server.url + LAST)
    assert "1 worker is stopping." in browser.page_source
    assert browser.execute_script("return document.getElementById('graceful-deploy').dataset.live") == "5"
    browser.execute_script("window.sameDocument = true")
    fleet.living = Living((living(2),))
    wait_until(lambda: "is stopping" not in browser.page_source, 15, "the page has followed")
    assert browser.execute_script("return window.sameDocument") is True
    assert browser.execute_script("return document.getElementById('graceful-deploy').dataset.live") is None
    assert errors(browser) == []


@pytest.mark.parametrize("workers", [1, 4, 200])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window(
    width: int, workers: int, browser: Chrome, live_server: LiveServer, reader: User, fleet: Fleet
) -> None:
    """The page does not scroll sideways, narrow or wide; only the timeline scrolls in its own frame."""
    save(stopped(number, 2 + number % 20) for number in range(workers))
    fleet.living = Living(tuple(living(number) for number in range(workers)))
    log_in(browser, live_server)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(live_server.url + LAST)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    bars = browser.execute_script("return document.querySelectorAll('.graceful-picture .graceful-part-drain').length")
    assert bars >= min(workers, 50)
    tracks = browser.find_elements(By.CSS_SELECTOR, ".graceful-picture tbody td.graceful-track")[:8]
    assert len({track.rect["x"] for track in tracks}) == 1, "bars of one axis begin at one place"
    parts = {kind: browser.find_element(By.CSS_SELECTOR, f".graceful-part-{kind}") for kind in ("drain", "hook", "new")}
    assert len({part.value_of_css_property("fill") for part in parts.values()}) == 3
    bar = browser.find_element(By.CSS_SELECTOR, ".graceful-track .graceful-part-drain")
    assert bar.value_of_css_property("fill") == parts["drain"].value_of_css_property("fill") == "rgb(65, 118, 144)"
    assert errors(browser) == []
