"""The check of the grace period against the platform's, and how a platform's is found out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.checks.registry import registry
from django.test import override_settings

from graceful.checks import check_platform
from graceful.management import worker_options
from graceful.reports import platforms
from graceful.reports.platforms import PlatformGrace, platform_grace

UNIT = "0::/system.slice/system-shop\\x2dworker.slice/shop-worker@1.service\n"


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No platform around: neither its variables nor its files."""
    for variable in ("KUBERNETES_SERVICE_HOST", "DYNO", "ECS_CONTAINER_METADATA_URI_V4", "FLY_MACHINE_ID", "RENDER"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("INVOCATION_ID", "SUPERVISOR_ENABLED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(platforms, "DOCKER_FILE", tmp_path / "dockerenv")
    monkeypatch.setattr(platforms, "CGROUP", tmp_path / "cgroup")
    return


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of systemctl, which writes down how it was called and says what the file beside it says."""
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\ncat {tmp_path}/says\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("INVOCATION_ID", "b7a9")
    (tmp_path / "cgroup").write_text(UNIT)
    (tmp_path / "says").write_text("2min\n")
    return tmp_path


def ids() -> list[str | None]:
    return [message.id for message in check_platform()]


@pytest.mark.parametrize(
    ("variable", "timeout", "number", "words"),
    [
        ("KUBERNETES_SERVICE_HOST", 25, None, ""),
        (
            "KUBERNETES_SERVICE_HOST",
            115,
            "graceful.W006",
            "at most 25, since Kubernetes sends SIGKILL after 30 s unless",
        ),
        ("ECS_CONTAINER_METADATA_URI_V4", 25, None, ""),
        ("ECS_CONTAINER_METADATA_URI_V4", 26, "graceful.W006", "unless stopTimeout is set, got: 26"),
        ("FLY_MACHINE_ID", 25, "graceful.W006", "at most 4, since Fly.io sends SIGKILL after 5 s unless kill_timeout"),
        ("RENDER", 40, "graceful.W006", "unless maxShutdownDelaySeconds is set"),
        ("SUPERVISOR_ENABLED", 25, "graceful.W006", "since supervisord sends SIGKILL after 10 s unless stopwaitsecs"),
        ("DYNO", 25, None, ""),
        ("DYNO", 28, "graceful.W005", "at most 25, since Heroku sends SIGKILL after 30 s, got: 28"),
    ],
)
def test_platforms(
    variable: str, timeout: float, number: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grace period that outlasts the platform's, or its default, is a warning that says how to say the real time."""
    monkeypatch.setenv(variable, "worker.1")
    found = check_platform(timeout=timeout)
    assert [message.id for message in found] == ([number] if number else [])
    for message in found:
        assert words in message.msg
        assert message.hint
        assert ("GRACEFUL_PLATFORM_TIMEOUT" in message.hint) == (number == "graceful.W006")


def test_docker(tmp_path: Path) -> None:
    """Docker's ten seconds are too short for the defaults."""
    assert ids() == []
    (tmp_path / "dockerenv").touch()
    (message,) = check_platform()
    assert message.id == "graceful.W006"
    assert message.msg.startswith("GRACEFUL_TIMEOUT should be at most 8, since Docker sends SIGKILL after 10 s unless")
    assert message.hint is not None
    assert "GRACEFUL_PLATFORM_TIMEOUT = 30" in message.hint
    with override_settings(GRACEFUL_TIMEOUT=8, GRACEFUL_HOOKS_TIMEOUT=2, GRACEFUL_INTERRUPT_TIMEOUT=1):
        assert ids() == []


def test_what_the_project_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """GRACEFUL_PLATFORM_TIMEOUT goes before the platform's default, in both directions."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with override_settings(GRACEFUL_TIMEOUT=115, GRACEFUL_PLATFORM_TIMEOUT=120):
        assert ids() == []
    with override_settings(GRACEFUL_PLATFORM_TIMEOUT=20):
        (message,) = check_platform()
    assert message.id == "graceful.W005"
    assert "at most 16, since the platform (GRACEFUL_PLATFORM_TIMEOUT) sends SIGKILL after 20 s" in message.msg


@pytest.mark.parametrize(
    ("says", "seconds"),
    [
        ("2min\n", 120.0),
        ("1min 30s\n", 90.0),
        ("1h 500ms\n", 3600.5),
        ("infinity\n", math.inf),
        ("1month 1y\n", 2_629_800 + 31_557_600),
        ("\n", None),
        ("[not set]\n", None),
    ],
)
def test_systemd_is_asked(systemctl: Path, says: str, seconds: float | None) -> None:
    """systemd tells what the unit's TimeoutStopSec= is."""
    (systemctl / "says").write_text(says)
    grace = platform_grace(os.environ, None)
    assert grace == (None if seconds is None else PlatformGrace("systemd", seconds))
    called = (systemctl / "called").read_text().strip()
    assert called == "show --property=TimeoutStopUSec --value -- shop-worker@1.service"


def test_a_unit_of_a_user(systemctl: Path) -> None:
    """A service of a user's own systemd is asked for there."""
    (systemctl / "cgroup").write_text("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n")
    assert platform_grace(os.environ, None) == PlatformGrace("systemd", 120.0)
    assert (systemctl / "called").read_text().startswith("--user show ")


def test_the_hierarchy_of_cgroup_v1(systemctl: Path) -> None:
    """Where cgroup v1 is in use, the unit stands in systemd's own hierarchy."""
    (systemctl / "cgroup").write_text("4:memory:/\n1:name=systemd:/system.slice/shop.service\n0::/\n")
    assert platform_grace(os.environ, None) == PlatformGrace("systemd", 120.0)


@pytest.mark.parametrize("group", ["0::/user.slice/user-1000.slice/session-3.scope\n", "0::/\n", ""])
def test_no_service_around(systemctl: Path, group: str) -> None:
    """A worker that somebody starts in a login session is in no service: nothing is asked, and nothing known."""
    (systemctl / "cgroup").write_text(group)
    assert platform_grace(os.environ, None) is None
    assert not (systemctl / "called").exists()


def test_systemctl_that_hangs_or_fails(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a worker waits for it no longer than its time, and goes on without."""
    monkeypatch.setattr(platforms, "SYSTEMCTL_SECONDS", 0.2)
    (systemctl / "bin" / "systemctl").write_text("#!/bin/sh\nexec sleep 60\n")
    assert platform_grace(os.environ, None) is None
    (systemctl / "bin" / "systemctl").write_text("#!/bin/sh\necho 2min\nexit 1\n")
    assert platform_grace(os.environ, None) is None


def test_only_workers_and_deploy_checks_are_warned() -> None:
    """Other commands of the same container, such as those of the web side, are not."""
    assert check_platform in registry.get_checks(include_deployment_checks=True)
    assert check_platform not in registry.get_checks()


def test_a_worker_is_warned_at_its_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The warning names the option that the grace period is from, and can be silenced."""
    monkeypatch.setenv("DYNO", "worker.1")
    worker_options.check_platform(40.0, "--timeout")
    assert "graceful.W005" in (said := capsys.readouterr().err)
    assert "--timeout should be at most 25" in said
    with override_settings(SILENCED_SYSTEM_CHECKS=["graceful.W005"]):
        worker_options.check_platform(40.0, "--timeout")
    assert capsys.readouterr().err == ""
