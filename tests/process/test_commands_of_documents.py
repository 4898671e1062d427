"""Console blocks of the documents are run, in a new project: what starts a worker has to start, and end cleanly."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.doc_blocks import Block, blocks
from tests.support.processes import ROOT
from tests.support.server import Server
from tests.support.waiting import wait_until

TUTORIAL = "docs/tutorial.md"
RELEASE = "2026.11.25-1"
SETTINGS = f"""
import os

INSTALLED_APPS += ["django_rq", "graceful", "shop"]
RQ_QUEUES = {{name: {{"URL": os.environ["REDIS_URL"]}} for name in ("high", "default", "low")}}
GRACEFUL_EXIT_HOOKS = ["graceful.hooks.builtin.close_database_connections"]
GRACEFUL_RELEASE = "{RELEASE}"
"""
CRON_JOBS = """
from rq import cron

cron.register(print, "default", args=("tick",), interval=3600)
"""
STARTED = {"runworker_graceful": "Listening on", "runcron_graceful": "registering birth"}
"""What a command that runs until it is stopped has logged once it has started."""
Shell = Callable[..., subprocess.Popen[str]]


def console() -> list[Any]:
    found = [each for each in blocks() if each.language == "console" and each.page != TUTORIAL and not each.reason]
    return [pytest.param(each, id=each.place) for each in found]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the documents tell to set one up, without tables."""
    project = tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", project], env=environment(""), check=True)
    with (project / "shop" / "settings.py").open("a") as file:
        file.write(SETTINGS)
    (project / "shop" / "cron_jobs.py").write_text(CRON_JOBS)
    shell(project, "", "python manage.py migrate").wait()
    return project


def environment(url: str) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "TEST_", "DATABASE_"))}
    return own | {
        "REDIS_URL": url,
        "TAG": RELEASE,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def shell(project: Path, url: str, command: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own; bash is replaced by it, so that a signal arrives."""
    with (project / "output").open("w") as output:
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=project,
            env=environment(url),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def until_stopped(project: Path, url: str, command: str, log: str, times: int) -> Iterator[None]:
    """While a command runs that only ends by a signal; it has to end with 0."""
    process = shell(project, url, command)
    said = (project / "output").read_text
    try:
        wait_until(lambda: said().count(log) >= times or process.poll() is not None, 30, said)
        assert process.poll() is None, said()
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, said()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("block", console())
def test_console(block: Block, template: Path, own_valkey: Server) -> None:
    """Each command of the block succeeds, or prints the exit code that the block says."""
    lines = block.text.splitlines()
    for line in lines:
        if line.startswith("$ "):
            said = run(template, own_valkey.url, re.sub(r"\s+# .*$", "", line.removeprefix("$ ")))
            if line.endswith("; echo $?"):
                assert said.splitlines()[-1] == lines[-1], said


def run(project: Path, url: str, command: str) -> str:
    """What a command has printed that ends by itself; one that does not is stopped once it has started."""
    words = shlex.split(command)
    name = words[words.index("manage.py") + 1]
    workers = int(words[words.index("--workers") + 1]) if "--workers" in words else 1
    if name in STARTED:
        with until_stopped(project, url, command, STARTED[name], workers):
            return ""
    with ExitStack() as fleet:
        if name == "wait_for_deploy":
            pool = f"python manage.py runworker_graceful --workers {workers} default"
            fleet.enter_context(until_stopped(project, url, pool, STARTED["runworker_graceful"], workers))
        said = subprocess.run(
            ["bash", "-c", command], cwd=project, env=environment(url), capture_output=True, text=True, timeout=60
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout
