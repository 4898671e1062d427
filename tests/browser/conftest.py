"""A real browser: Chromium without a window, driven through chromedriver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
    "--force-color-profile=srgb",
)


@pytest.fixture(scope="session")
def live_server(django_db_setup: None, live_server: LiveServer) -> LiveServer:
    """The server, made once the test database is there.

    Made before, it takes SQLite's for one in memory, and lets all its threads use the one connection at once.
    """
    assert live_server.thread.connections_override == {}
    return live_server


NewBrowser = Callable[..., Chrome]


def program(variable: str, *names: str) -> str:
    """Path of a program: that in the environment variable, or the first of the names on the PATH."""
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise RuntimeError(f"Set {variable}, or install one of: {', '.join(names)}")
    return found


def start_browser(profile: Path, *flags: str) -> Chrome:
    """A browser with a profile of its own, whose console and requests are written down."""
    options = ChromeOptions()
    options.binary_location = program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = ChromeService(program("CHROMEDRIVER", "chromedriver", "chromium.chromedriver"))
    browser = Chrome(options=options, service=service)
    browser.set_page_load_timeout(30)
    return browser


@pytest.fixture
def new_browser(tmp_path: Path) -> Iterator[NewBrowser]:
    """Start browsers, each with a profile of its own; they end with the test."""
    open_ones: list[Chrome] = []

    def start(*flags: str) -> Chrome:
        open_ones.append(start_browser(tmp_path / f"profile-{len(open_ones)}", *flags))
        return open_ones[-1]

    yield start
    for browser in open_ones:
        browser.quit()


@pytest.fixture
def browser(new_browser: NewBrowser) -> Chrome:
    return new_browser()
