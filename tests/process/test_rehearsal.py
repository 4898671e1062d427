"""``manage.py rehearse_shutdown`` as a user runs it: in a process of its own, with the project's own hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_rq", "graceful"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
RQ_QUEUES = {"default": {"HOST": "127.0.0.1", "PORT": 1}}
GRACEFUL_TIMEOUT, GRACEFUL_HOOKS_TIMEOUT, GRACEFUL_INTERRUPT_TIMEOUT = 10, 2, 3
GRACEFUL_EXIT_HOOKS = ["rehearsed_hooks.told"]
"""
HOOKS = """
def told(shutdown):
    jobs = ",".join(job.outcome for job in shutdown.jobs.in_flight)
    return f"{shutdown.signal} jobs=[{jobs}] left={shutdown.time_left() > 0}"

def fails():
    raise OSError("broken")

def asks_the_database():
    from django.db import connection
    connection.ensure_connection()

def asks_redis():
    import redis
    redis.Redis(port=1).ping()
"""


def rehearse(directory: Path, *options: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    (directory / "rehearsed_settings.py").write_text(SETTINGS + settings)
    (directory / "rehearsed_hooks.py").write_text(HOOKS)
    return subprocess.run(
        [sys.executable, "-m", "django", "rehearse_shutdown", *options],
        env={
            **os.environ,
            "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": "rehearsed_settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("options", "outcome", "code"),
    [
        ((), "", 0),
        (("--job-seconds", "4.9"), "finished", 0),
        (("--job-seconds", "6"), "interrupted", 75),
        (("--job-seconds", "6", "--stubborn"), "finished", 0),
        (("--job-seconds", "600", "--cleanup-seconds", "2.9"), "interrupted", 75),
        (("--job-seconds", "600", "--cleanup-seconds", "4"), "killed", 75),
        (("--job-seconds", "600", "--stubborn"), "killed", 75),
    ],
)
def test_the_job_ends_as_the_limits_decide(options: tuple[str, ...], outcome: str, code: int, tmp_path: Path) -> None:
    """With a soft limit of 5 s and a hard one of 8 s; the hook is told the outcome, and the exit code says it."""
    done = rehearse(tmp_path, *options, "--fail-if-unclean")
    assert f"SIGTERM jobs=[{outcome}] left=True" in done.stdout
    assert (done.returncode, done.stderr) == (code, "")


def test_without_the_option_it_reports_only(tmp_path: Path) -> None:
    """The exit code is 0 whatever the rehearsal shows, unless it is asked for."""
    done = rehearse(tmp_path, "--job-seconds", "600")
    assert "INTERRUPTED, exit code 75" in done.stdout
    assert done.returncode == 0


def test_by_policy_the_job_fails(tmp_path: Path) -> None:
    """GRACEFUL_INTERRUPTED_JOBS = "fail" fails the made-up job too."""
    done = rehearse(tmp_path, "--job-seconds", "600", settings='GRACEFUL_INTERRUPTED_JOBS = "fail"')
    assert "jobs=[interruption_failed]" in done.stdout


def test_a_failing_hook_is_found(tmp_path: Path) -> None:
    """A hook that fails makes the exit code 70, and its traceback is shown."""
    done = rehearse(tmp_path, "--fail-if-unclean", settings='GRACEFUL_EXIT_HOOKS = ["rehearsed_hooks.fails"]')
    assert done.returncode == 70
    assert "OSError: broken" in done.stdout


@pytest.mark.parametrize(
    ("option", "hook", "error"),
    [
        ("--database-down", "asks_the_database", "OperationalError: rehearsal: the database is unreachable"),
        ("--redis-down", "asks_redis", "ConnectionError: rehearsal: Redis is unreachable"),
    ],
)
def test_a_hook_that_needs_what_is_down(option: str, hook: str, error: str, tmp_path: Path) -> None:
    """A hook meets the outage as it would in a worker, whose report says so."""
    done = rehearse(tmp_path, option, "--fail-if-unclean", settings=f'GRACEFUL_EXIT_HOOKS = ["rehearsed_hooks.{hook}"]')
    assert error in done.stdout
    assert done.returncode == 70


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (("--timeout", "1"), "", "GRACEFUL_HOOKS_TIMEOUT must be below --timeout (1), got: 2"),
        ((), "GRACEFUL_MAX_INTERRUPTIONS = -1", "GRACEFUL_MAX_INTERRUPTIONS must be a whole number from 0"),
    ],
)
def test_wrong_settings(options: tuple[str, ...], settings: str, said: str, tmp_path: Path) -> None:
    """What is wrong is named before any hook runs."""
    done = rehearse(tmp_path, *options, settings=settings)
    assert said in done.stderr
    assert done.returncode != 0
    assert done.stdout == ""
