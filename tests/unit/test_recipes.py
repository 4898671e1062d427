"""The recipes in docs/recipes: each file can be parsed, and each platform waits longer than GRACEFUL_TIMEOUT there."""

from __future__ import annotations

import configparser
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from graceful import conf
from graceful.checks import check_platform
from tests.support import recipe_files

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
MARGIN_SECONDS = 5
DEFAULT_SECONDS = {"heroku": 30}
"""Where the platform's time cannot be set."""


def only(name: str, language: str) -> str:
    return recipe_files.only(f"recipes/{name}", language)


def ini(name: str) -> dict[str, dict[str, str]]:
    # A unit may have a key twice, as Environment=; the last one is enough here.
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(only(name, "ini"))
    return {section: dict(parser[section]) for section in parser.sections()}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def platform_seconds(name: str) -> float:
    """Seconds between SIGTERM and SIGKILL on the platform of a recipe, as its file says."""
    found: Any
    if name == "systemd":
        found = ini(name)["Service"]["TimeoutStopSec"]
    elif name == "supervisor":
        found = ini(name)["program:shop-worker"]["stopwaitsecs"]
    elif name == "docker":
        found = yaml.safe_load(only(name, "yaml"))["services"]["worker"]["stop_grace_period"]
    elif name == "kubernetes":
        found = yaml.safe_load(only(name, "yaml"))["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    elif name == "ecs":
        found = json.loads(only(name, "json"))["containerDefinitions"][0]["stopTimeout"]
    elif name == "fly":
        found = tomllib.loads(only(name, "toml"))["kill_timeout"]
    elif name == "render":
        found = yaml.safe_load(only(name, "yaml"))["services"][0]["maxShutdownDelaySeconds"]
    else:
        found = DEFAULT_SECONDS[name]
    return seconds(str(found))


def named_settings(name: str) -> dict[str, Any]:
    """The GRACEFUL_* settings of a recipe, evaluated as Python."""
    values: dict[str, Any] = {}
    exec(compile("import os\n" + only(name, "python"), f"{name}.md", "exec"), values)
    return {key: value for key, value in values.items() if key.startswith("GRACEFUL_")}


VARIABLES = {
    "supervisor": "SUPERVISOR_ENABLED",
    "kubernetes": "KUBERNETES_SERVICE_HOST",
    "ecs": "ECS_CONTAINER_METADATA_URI_V4",
    "heroku": "DYNO",
    "fly": "FLY_MACHINE_ID",
    "render": "RENDER",
}
"""By which a worker knows the platform."""
PLATFORMS = ["systemd", "docker", "kubernetes", "ecs", "heroku", "fly", "render", "supervisor"]


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_platform_waits_longer_than_the_worker_needs(name: str, settings: Any) -> None:
    """SIGKILL comes at least five seconds after the end of the grace period, and the settings are valid ones."""
    for key, value in named_settings(name).items():
        setattr(settings, key, value)
    assert conf.problems() == []
    assert conf.settings().timeout + MARGIN_SECONDS <= platform_seconds(name)


@pytest.mark.parametrize(("name", "variable"), VARIABLES.items())
def test_a_worker_on_the_platform_is_not_warned(
    name: str, variable: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings of the recipe, the system check has nothing to say on that platform."""
    for each in VARIABLES.values():
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, "1")
    for key, value in named_settings(name).items():
        setattr(settings, key, value)
    assert check_platform() == []
    if name != "heroku":
        assert platform_seconds(name) == settings.GRACEFUL_PLATFORM_TIMEOUT


def test_kubernetes_asks_what_a_worker_answers() -> None:
    """Each probe asks the port that the worker is told, the right question, and outside of the container's loopback."""
    (container,) = yaml.safe_load(only("kubernetes", "yaml"))["spec"]["template"]["spec"]["containers"]
    options = dict(itertools.pairwise(container["args"]))
    assert options["--probe-host"] == "0.0.0.0"
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: each["path"] for name, each in asked.items()} == {
        "startup": "/ready",
        "readiness": "/ready",
        "liveness": "/live",
    }
    assert {str(each["port"]) for each in asked.values()} == {options["--probe-port"]}


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_worker_gets_the_signal_itself(name: str) -> None:
    """No recipe starts the worker by way of a shell that would keep the signal."""
    text = (RECIPES / f"{name}.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "runworker_graceful" in line]
    assert lines
    assert not [line for line in lines if re.search(r"\b(sh|bash) -c|&&", line)]


def test_every_recipe_is_in_the_index() -> None:
    """The index links each page, and no page that is not there."""
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(([\w-]+\.md)\)", index)) == {page.name for page in RECIPES.glob("*.md")} - {"README.md"}


def test_systemd_listens_to_the_worker_alone() -> None:
    """What a worker tells is asked for, and believed of the unit's main process only."""
    service = ini("systemd")["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert seconds(service["WatchdogSec"]) > 0


def test_exit_codes_mean_to_systemd_what_they_mean_here() -> None:
    """Interrupted jobs are no failure of the unit, and wrong settings are not tried again."""
    service = ini("systemd")["Service"]
    assert service["SuccessExitStatus"] == "75"
    assert service["RestartPreventExitStatus"] == "78"
