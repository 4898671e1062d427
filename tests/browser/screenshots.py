"""``make screenshots``: the pictures of the documents, from the data that ``make demo`` has left in .demo/."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import django

from demo_project.__main__ import ROOT, STATE_DIR
from demo_project.servers import redis_server
from tests.browser.conftest import start_browser
from tests.support.waiting import wait_until

FOLDER = ROOT / "docs" / "images"
ADMIN = "/admin/graceful/"
PICTURES: dict[str, tuple[str, int, int, str]] = {
    # name: page, width and height in pixels, colours
    "deploy": (f"{ADMIN}lastdeploy/", 1280, 716, "light"),
    "deploy-dark": (f"{ADMIN}lastdeploy/", 1280, 716, "dark"),
    "deploy-narrow": (f"{ADMIN}lastdeploy/", 390, 844, "light"),
    "report": (f"{ADMIN}shutdownreport/last/", 1280, 900, "light"),
    "list": (f"{ADMIN}shutdownreport/", 1280, 700, "light"),
    "trends": (f"{ADMIN}shutdownrollup/?days=90", 1280, 1000, "light"),
}


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


def session() -> str:
    """The key of a new session of a user who may see everything."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    user, _new = get_user_model().objects.get_or_create(
        username="admin", defaults={"is_staff": True, "is_superuser": True}
    )
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def take(site: str) -> None:
    with tempfile.TemporaryDirectory() as profile:
        browser = start_browser(Path(profile), "--hide-scrollbars")
        try:
            browser.get(f"{site}/admin/login/")
            browser.add_cookie({"name": "sessionid", "value": session(), "path": "/"})
            for name, (page, width, height, colours) in PICTURES.items():
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                scheme = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
                browser.get(site + page)
                # The documents show our pages; the sidebar of Django's admin would take a quarter of the width.
                browser.execute_script("document.querySelector('#main').classList.remove('shifted')")
                file = FOLDER / f"{name}.png"
                browser.save_screenshot(str(file))
                print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} kB")
        finally:
            browser.quit()


def main() -> None:
    if not (STATE_DIR / "db.sqlite3").exists():
        sys.exit("There is nothing to show yet: run `make demo` first.")
    FOLDER.mkdir(exist_ok=True)
    os.environ["DJANGO_SETTINGS_MODULE"] = "demo_project.settings"
    with redis_server(STATE_DIR):
        django.setup()
        from demo_project.history import make_history
        from demo_project.management.commands.demo_admin import free_port

        make_history()
        site = f"http://127.0.0.1:{free_port(8000)}"
        command = [
            sys.executable,
            "manage.py",
            "runserver",
            "--noreload",
            "--skip-checks",
            site.removeprefix("http://"),
        ]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: answers(f"{site}/admin/login/"), 60, "the demo's admin")
            take(site)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
