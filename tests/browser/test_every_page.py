"""Every page in one browser: light, dark, narrow, in Chinese, by keyboard, to axe, and with hostile content."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome

from graceful.admin import poison_page
from graceful.admin.poison import PoisonJobAdmin
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.records import HookResult, InFlightJob, JobTally, ShutdownReport, utc_now
from graceful.models import Release
from graceful.reports import archive
from graceful.reports.deploys.rows import Living
from graceful.worker.cluster import deploy_now
from graceful.worker.cluster.poison import Poison
from tests.browser.accessibility import console, keyboard, requests_outside, too_wide, violations
from tests.browser.conftest import start_browser
from tests.browser.test_admin_pages import PAYLOAD, reader, site
from tests.db.samples import a_clean_report, a_report
from tests.db.test_deploy_pages import Fleet, living, save

__all__ = ["reader", "site"]
pytestmark = pytest.mark.django_db(transaction=True)

REPORTS = "/admin/graceful/shutdownreport/"
OUTCOMES = [each.value for each in Outcome]
PAGES = {
    "index": "/admin/",
    "list": REPORTS,
    "list, filtered": f"{REPORTS}?outcome__exact=clean&q=web",
    **{f"report, {outcome}": f"{REPORTS}{outcome}/change/" for outcome in OUTCOMES},
    "last report": f"{REPORTS}last/",
    "last deploy": "/admin/graceful/lastdeploy/",
    "release": "/admin/graceful/lastdeploy/release/2026.03.1/",
    "deploy of a report": f"/admin/graceful/lastdeploy/of/{OUTCOMES[0]}/",
    "poison jobs": "/admin/graceful/poisonjob/",
    "trends": "/admin/graceful/shutdownrollup/",
    "trends of a hook": "/admin/graceful/shutdownrollup/?hook=close%20pool",
}
LOOKS: dict[str, tuple[str, int, str]] = {
    "light": ("light", 1280, "en"),
    "dark": ("dark", 1280, "en"),
    "narrow": ("light", 390, "en"),
    "Chinese": ("light", 1280, "zh-hans"),
    "narrow Chinese": ("light", 390, "zh-hans"),
}
TERMINAL = "\x1b]0;owned\x07\x1b[31m\u202eesrever\udc80\ud800"
HOSTILE = PAYLOAD + TERMINAL + "x" * 3000


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests of this file."""
    browser = start_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = Fleet()
    monkeypatch.setattr(deploy_now, "page_fleet", fleet)
    monkeypatch.setattr(deploy_now, "where_now", lambda jobs, seconds: tuple(jobs))
    return fleet


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> list[Poison]:
    """What the page of poison jobs finds, instead of a Redis server; with the button, which the reader has not."""
    died = Attempt(AttemptEnd.WORKER_DIED, utc_now(), "web-1.7", "web-1", "shop.jobs.rebuild_index", out_of_memory=True)
    stack = '  File "/srv/shop/jobs.py", line 71, in rebuild_index\n    rows.append(row)'
    killed = died._replace(ended=AttemptEnd.KILLED, signal="SIGKILL", peak_bytes=2**30, stack=stack)
    found = [Poison("7b0c1ee2-6d1c-4c5f-9b7e-1f5f9a3c2d10", "default", utc_now(), 4, (died, killed))]
    monkeypatch.setattr(poison_page, "_read", lambda: (found, False))
    monkeypatch.setattr(PoisonJobAdmin, "has_requeue_permission", PoisonJobAdmin.has_view_permission)
    return found


@pytest.fixture
def opened(chrome: Chrome, live_server: LiveServer, reader: User) -> Chrome:
    """The browser, logged in, with empty logs."""
    client = Client()
    client.force_login(reader)
    chrome.get(f"{live_server.url}/admin/login/")
    name = site_settings.SESSION_COOKIE_NAME
    chrome.add_cookie({"name": name, "value": client.cookies[name].value, "path": "/"})
    console(chrome), requests_outside(chrome, "")
    return chrome


def look(browser: Chrome, name: str, settings: Any) -> None:
    colours, width, settings.LANGUAGE_CODE = LOOKS[name]
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)


def complain(found: dict[str, list[str]]) -> None:
    assert not any(found.values()), "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)


def one_of_each(**changes: Any) -> list[ShutdownReport]:
    now = utc_now().replace(microsecond=0) - timedelta(minutes=5)
    found = []
    for number, outcome in enumerate(Outcome):
        asked = now + timedelta(seconds=number)
        make = a_clean_report if outcome is Outcome.CLEAN else a_report
        times = {
            "requested_at": asked,
            "drained_at": asked + timedelta(seconds=12),
            "ended_at": asked + timedelta(seconds=14),
        }
        found.append(make(id=outcome.value, outcome=outcome, worker=f"web-1.{number}", **(times | changes)))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_page(page: str, opened: Chrome, live_server: LiveServer, fleet: Fleet, settings: Any) -> None:
    """No complaint of axe or of the console, nothing too wide, no request to elsewhere, all within Tab's reach."""
    save(one_of_each())
    Release.objects.create(label="2026.03.1", started_at=utc_now() - timedelta(hours=1))
    fleet.living = Living((living(1), living(2)))
    found = {}
    for name in LOOKS:
        look(opened, name, settings)
        opened.get(live_server.url + PAGES[page])
        assert opened.find_elements("css selector", "#content"), opened.page_source[:500]
        found[name] = too_wide(opened) + console(opened) + requests_outside(opened, live_server.url)
        if "Chinese" not in name:
            found[name] += violations(opened)
        if name == "light":
            found[name] += keyboard(opened)
    complain(found)


def hostile_report() -> ShutdownReport:
    job = InFlightJob(HOSTILE, HOSTILE, HOSTILE, JobOutcome.KILLED, 9e11, 2**31 - 1, HOSTILE)
    hook = HookResult(HOSTILE, HookOutcome.FAILED, 9e11, 9e11, HOSTILE, HOSTILE, HOSTILE)
    (report,) = one_of_each()[:1]
    return report._replace(
        id="hostile",
        outcome=Outcome.INTERRUPTED,
        phase=Phase.SEALED,
        reason=Reason.SIGNAL,
        worker=HOSTILE,
        hostname=HOSTILE,
        release=PAYLOAD,
        signal=HOSTILE,
        queues=(HOSTILE, HOSTILE),
        worker_class=HOSTILE,
        notes=HOSTILE,
        jobs=JobTally(2**31 - 1, 0, (job,)),
        hooks=(hook,),
    )


def test_hostile_content_is_inert(opened: Chrome, live_server: LiveServer, settings: Any, poison: list[Poison]) -> None:
    """HTML, terminal escapes, huge figures and texts, and lone surrogates in every field are shown as text."""
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]  # Without the policy's help.
    hostile = hostile_report()
    endless = hostile._replace(id="endless", hooks=(hostile.hooks[0]._replace(seconds=float("nan")),))
    assert not archive.store(endless, seconds=10), "what is not a number is set aside, and never shown"
    assert archive.store(hostile, seconds=10)
    attempt = Attempt(AttemptEnd.KILLED, utc_now(), *([HOSTILE] * 4), 2**52, True, HOSTILE)
    job_id = HOSTILE.encode("utf-8", "replace").decode()  # As it comes out of Redis.
    poison[:] = [Poison(job_id, HOSTILE, utc_now(), 2**31, (attempt,))]
    found = {}
    addresses = ("", "last/", "hostile/change/", "../lastdeploy/", "../lastdeploy/of/hostile/", "../shutdownrollup/")
    addresses += ("../poisonjob/",)
    for address in addresses:
        for name in ("light", "narrow"):
            look(opened, name, settings)
            opened.get(live_server.url + REPORTS + address)
            for summary in opened.find_elements("css selector", "#content summary"):
                summary.click()
            wrong = console(opened) + requests_outside(opened, live_server.url) + violations(opened)
            if address:
                wrong += too_wide(opened)
            if opened.title == "owned" or opened.find_elements("css selector", "img[src=x]"):
                wrong.append("markup was obeyed")
            raw = opened.execute_script(r"return /[\x00-\x08\x1b\u202e\ud800-\udfff]/.test(document.body.innerText)")
            wrong += ["a control character is shown raw"] if raw else []
            wrong += [] if opened.find_elements("css selector", "#content h1, #content h2") else ["no page"]
            found[f"{address} {name}"] = wrong
    complain(found)
