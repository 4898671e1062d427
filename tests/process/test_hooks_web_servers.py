"""``run_at_exit`` under the web servers themselves: gunicorn, with and without preloading, and uvicorn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

SITE = """
import os, pathlib, time
from django.conf import settings

HERE = pathlib.Path(__file__).parent

def hook(shutdown):
    with open(HERE / "hooks", "a") as file:
        file.write(f"{os.getpid()} {shutdown.reason}\\n")

settings.configure(
    DEBUG=False, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, GRACEFUL_EXIT_HOOKS=[hook],
    INSTALLED_APPS=[],
)
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
import graceful

def pid(request):
    return HttpResponse(str(os.getpid()))

def slow(request):
    (HERE / "slow-begun").touch()
    while not (HERE / "go-on").exists():
        time.sleep(0.01)
    return HttpResponse("whole")

urlpatterns = [path("", pid), path("slow/", slow)]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
"""
AT_IMPORT = "graceful.run_at_exit()\n"
AT_IMPORT_OF_UVICORN = "graceful.run_at_exit(signals=True)\n"
POST_WORKER_INIT = """
def post_worker_init(worker):
    import graceful
    graceful.run_at_exit()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(directory: Path, site: str, *command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port that answers; killed at the end if it is still there."""
    (directory / "site_of_test.py").write_text(site)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        try:
            return bool(fetch(url))
        except OSError:
            return False

    try:
        wait_until(answers)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        text: str = response.read().decode()
        return text


def hooks_run(directory: Path) -> list[str]:
    path = directory / "hooks"
    return path.read_text().splitlines() if path.exists() else []


SERVERS = {
    "gunicorn": (SITE + AT_IMPORT, ("gunicorn", "-b", "127.0.0.1:{port}", "-w", "1", "site_of_test:wsgi")),
    "gunicorn, threads": (
        SITE + AT_IMPORT,
        ("gunicorn", "-b", "127.0.0.1:{port}", "-w", "1", "--threads", "4", "site_of_test:wsgi"),
    ),
    "gunicorn, preloaded": (
        SITE,
        ("gunicorn", "-c", "server_config.py", "-b", "127.0.0.1:{port}", "-w", "1", "--preload", "site_of_test:wsgi"),
    ),
    "uvicorn": (SITE + AT_IMPORT_OF_UVICORN, ("uvicorn", "--port", "{port}", "site_of_test:asgi")),
}


@pytest.mark.parametrize("server", SERVERS)
def test_hooks_run_once_after_the_last_request(server: str, tmp_path: Path) -> None:
    """At SIGTERM the request in flight is answered, and then the hooks run once, in the process that served it."""
    site, command = SERVERS[server]
    (tmp_path / "server_config.py").write_text(POST_WORKER_INIT)
    answer: list[str] = []
    with serving(tmp_path, site, *command) as (process, url):
        worker = fetch(url)
        request = threading.Thread(target=lambda: answer.append(fetch(url + "slow/")))
        request.start()
        wait_until((tmp_path / "slow-begun").exists)
        process.send_signal(signal.SIGTERM)
        (tmp_path / "go-on").touch()
        request.join(30)
        _, errors = process.communicate(timeout=30)
    assert answer == ["whole"]
    assert hooks_run(tmp_path) == [f"{worker} exit"]
    # uvicorn, once it has shut down, sends itself the signal again (uvicorn/server.py, Server.capture_signals).
    assert process.returncode == (128 + signal.SIGTERM if server == "uvicorn" else 0)
    assert not re.search("Traceback", errors)


def test_each_worker_runs_its_own(tmp_path: Path) -> None:
    """Each of several gunicorn workers runs the hooks once, and the arbiter does not."""
    (tmp_path / "server_config.py").write_text(POST_WORKER_INIT)
    command = (
        "gunicorn",
        "-c",
        "server_config.py",
        "-b",
        "127.0.0.1:{port}",
        "-w",
        "3",
        "--preload",
        "site_of_test:wsgi",
    )
    with serving(tmp_path, SITE, *command) as (process, url):
        pids: set[str] = set()

        def all_answered() -> bool:
            pids.add(fetch(url))
            return len(pids) == 3

        wait_until(all_answered)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(hooks_run(tmp_path)) == sorted(f"{pid} exit" for pid in pids)
    assert str(process.pid) not in pids
