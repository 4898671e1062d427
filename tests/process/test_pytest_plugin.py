"""The fixtures for a project's own tests, in a project of its own: the example of docs/testing.md is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, is_alive
from tests.support.server import Server

SETTINGS = """
import os
SECRET_KEY = "of a test"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_rq", "graceful"]
RQ_QUEUES = {"default": {"URL": os.environ["SHOP_REDIS_URL"]}}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DATABASE"]}}
GRACEFUL_EXIT_HOOKS = ["shop.jobs.close_mail_server"]
"""
JOBS = """
import time

def send_mails():
    time.sleep(1)

def close_mail_server():
    return "closed"
"""
LEFT = """
def test_one_is_left(graceful_process):
    graceful_process(wait=False)
    first = graceful_process()
    print("PID", first.pid)

def test_it_ends_at_once(graceful_process):
    graceful_process(options=["--timeout", "-1"])
"""


@pytest.fixture
def shop(tmp_path: Path, valkey: Server) -> Path:
    """A project, with its tables."""
    (tmp_path / "shop").mkdir()
    for name, code in {"__init__": "", "settings": SETTINGS, "jobs": JOBS}.items():
        (tmp_path / "shop" / f"{name}.py").write_text(code)
    run(tmp_path, valkey, "-m", "django", "migrate", "--verbosity", "0")
    return tmp_path


def run(project: Path, server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TEST_"))}
    environment |= {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_REDIS_URL": server.url,
        "SHOP_DATABASE": str(project / "shop.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)]),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_documents_example(shop: Path, valkey: Server) -> None:
    """The example passes as it is."""
    (example,) = re.findall(
        r"```python\n(# test_shutdown.py\n.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL
    )
    (shop / "test_shutdown.py").write_text(example)
    ran = run(shop, valkey, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shutdown.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_what_is_left_is_killed(shop: Path, valkey: Server) -> None:
    """Workers that a test leaves behind are killed; one that ends at once fails the test and shows its log."""
    (shop / "test_left.py").write_text(LEFT)
    ran = run(shop, valkey, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_left.py")
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "exit code 78" in ran.stdout
    assert "--timeout must be a positive number of seconds, got: -1" in ran.stdout
    (pid,) = re.findall(r"PID (\d+)", ran.stdout)
    assert not is_alive(int(pid))
