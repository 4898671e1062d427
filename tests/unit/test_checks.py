"""The system checks: one test for each id, that it is found, with its message and a hint."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core import checks as django_checks
from django.core.checks.registry import registry
from django.test import override_settings

import graceful.checks
from graceful.checks import check_apps, check_hooks, check_settings
from graceful.hooks.registry import exit_hook, horse_exit_hook, unregister

HERE = __name__
a_string = "not to be called"


def fine() -> None:
    """A hook."""


def fine_with_shutdown(shutdown: object, extra: int = 3) -> None:
    """A hook that is given the Shutdown."""


def too_many(one: object, two: object) -> None:
    """No hook."""


def generator() -> Iterator[int]:
    """No hook: calling it runs nothing."""
    yield 1


async def async_generator() -> Any:
    """No hook either."""
    yield 1


def found() -> list[tuple[str | None, str]]:
    """Ids and messages; each has a hint."""
    messages = [*check_apps(), *check_settings(), *check_hooks()]
    assert all(message.hint for message in messages)
    return [(message.id, message.msg) for message in messages]


@pytest.fixture
def registered() -> Iterator[Callable[..., None]]:
    """Register hooks for this test only."""
    calls = []

    def register(call: Any, *, horse: bool = False, **options: Any) -> None:
        calls.append(call)
        (horse_exit_hook if horse else exit_hook)(**options)(call)

    yield register
    for call in calls:
        unregister(call)


SETTINGS: dict[str, dict[str, Any]] = {
    "E001": {"GRACEFUL_TIMOUT": 3},
    "E002": {"GRACEFUL_TIMEOUT": -5},
    "E003": {"GRACEFUL_TIMEOUT": 5},
    "E004": {"GRACEFUL_INTERRUPTED_JOBS": "drop"},
    "E005": {"GRACEFUL_MAX_INTERRUPTIONS": -1},
    "E006": {"GRACEFUL_RELEASE": 7},
    "E007": {"GRACEFUL_REPORTS_KEEP": 0},
    "E008": {"GRACEFUL_SPOOL_DIR": "relative"},
    "E009": {"GRACEFUL_EXIT_HOOKS": "a.b"},
    "E010": {"GRACEFUL_EXIT_HOOKS": [7]},
    "E011": {"GRACEFUL_EXIT_HOOKS": [{"call": fine, "zzz": 1}]},
    "E012": {"GRACEFUL_EXIT_HOOKS": [{"call": fine, "timeout": 0}]},
    "E013": {"GRACEFUL_EXIT_HOOKS": [fine, fine]},
    "E014": {"GRACEFUL_EXIT_HOOKS": ["no_such_package.hook"]},
    "E015": {"GRACEFUL_EXIT_HOOKS": [f"{HERE}.a_string"]},
    "E016": {"GRACEFUL_EXIT_HOOKS": [too_many]},
    "E017": {"GRACEFUL_EXIT_HOOKS": [generator]},
    "E018": {"INSTALLED_APPS": [app for app in django_settings.INSTALLED_APPS if app != "django_rq"]},
    "E019": {"GRACEFUL_JSON_TOKEN": "short"},
    "E022": {"GRACEFUL_MAX_MEMORY": "512"},
    "E023": {"GRACEFUL_MAX_AGE": 0},
    "E024": {"GRACEFUL_JOB_MEMORY": -1},
    "E025": {"GRACEFUL_PROBE_PORT": 0},
    "E034": {"GRACEFUL_REPORT_CONNECTIONS": 0},
    "W001": {"GRACEFUL_TIMEOUT": 8},
    "W002": {"GRACEFUL_EXIT_HOOKS": [{"call": fine, "timeout": 6}]},
}


@pytest.mark.parametrize("number", SETTINGS)
def test_each_id_is_found(number: str) -> None:
    """Each check id is found for its mistake."""
    with override_settings(**SETTINGS[number]):
        (message,) = [*check_apps(), *check_settings(), *check_hooks()]
    assert message.id == f"graceful.{number}"
    assert message.hint
    assert isinstance(message, django_checks.Error if number[0] == "E" else django_checks.Warning)


def test_every_id_is_in_the_table_and_in_a_test() -> None:
    """Every check id is in the documented table and has a test."""
    listed = re.findall(r"^([EW]\d{3})  ", inspect.getdoc(graceful.checks) or "", re.MULTILINE)
    assert listed == [*SETTINGS, "W003", "W004", "W005", "W006"]  # In tests/db, and in test_platform_check.py.


def test_checks_are_registered_with_django() -> None:
    """``manage.py check`` runs the checks."""
    assert {check_apps, check_settings, check_hooks} <= set(registry.get_checks())


def test_nothing_is_found_without_settings() -> None:
    """A project without settings gets no messages."""
    assert found() == []


@override_settings(
    GRACEFUL_EXIT_HOOKS=[
        fine,
        f"{HERE}.fine_with_shutdown",
        {"call": "no_such_package.hook", "optional": True, "when": "no_such_package.when"},
        {"call": "os.getcwd", "when": fine_with_shutdown},
    ],
    GRACEFUL_HORSE_EXIT_HOOKS=[fine, "graceful.hooks.builtin.flush_logging"],
)
def test_nothing_is_found_in_good_hooks() -> None:
    """Valid hooks get no messages."""
    assert found() == []


@override_settings(GRACEFUL_EXIT_HOOKS=["no_such_package.hook"])
def test_missing_module() -> None:
    """The message names the missing module and the hook."""
    message = (
        "GRACEFUL_EXIT_HOOKS: the hook no_such_package.hook must be importable, got: No module named 'no_such_package'"
    )
    assert found() == [("graceful.E014", message)]


def test_missing_dependency_of_an_optional_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing dependency of an optional hook's module is an error."""
    (tmp_path / "checked_with_a_dependency.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(GRACEFUL_EXIT_HOOKS=[{"call": "checked_with_a_dependency.flush", "optional": True}]):
        ((number, message),) = found()
    assert number == "graceful.E014"
    assert "No module named 'no_such_package'" in message


@pytest.mark.parametrize("optional", [True, False])
def test_missing_name_in_a_module_that_is_there(optional: bool) -> None:
    """A missing name is an error for an optional hook too."""
    with override_settings(GRACEFUL_EXIT_HOOKS=[{"call": f"{HERE}.misspelt", "optional": optional}]):
        ((number, message),) = found()
    assert number == "graceful.E014"
    assert "misspelt" in message


@pytest.mark.parametrize("error", ["TypeError", "SystemExit", "SyntaxError"])
def test_module_that_breaks_at_import(error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that raises at import is an error of its hook, not of the whole check."""
    name = f"breaks_with_{error.lower()}"
    (tmp_path / f"{name}.py").write_text(f"raise {error}('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(GRACEFUL_EXIT_HOOKS=[f"{name}.hook"]):
        ((number, message),) = found()
    assert number == "graceful.E014"
    assert message.endswith(f"got: {error}: broken")


def test_condition_and_async_generator() -> None:
    """Conditions are checked as hooks are; async generators are refused."""
    with override_settings(GRACEFUL_EXIT_HOOKS=[{"call": fine, "name": "mine", "when": "os.sep"}, async_generator]):
        numbers = found()
    assert numbers[0] == (
        "graceful.E015",
        "GRACEFUL_EXIT_HOOKS: the condition (when) of the hook mine must be callable, got: os.sep, of type str",
    )
    assert numbers[1][0] == "graceful.E017"


class GeneratorObject:
    """An object whose call is a generator."""

    def __call__(self) -> Iterator[int]:
        yield 1


@override_settings(GRACEFUL_EXIT_HOOKS=[GeneratorObject(), functools.partial(generator)])
def test_generators_in_disguise() -> None:
    """Generators are refused also in a partial or as a method."""
    assert [number for number, _ in found()] == ["graceful.E017", "graceful.E017"]


def test_busy_and_idle_hooks_are_checked_too() -> None:
    """Busy and idle hooks are imported, and their signatures looked at."""
    ready = ["graceful.hooks.scale_in.ecs_task_protection", "graceful.hooks.scale_in.kubernetes_pod_deletion_cost"]
    with override_settings(GRACEFUL_BUSY_HOOKS=ready, GRACEFUL_IDLE_HOOKS=ready):
        assert found() == []
    with override_settings(GRACEFUL_BUSY_HOOKS=["no_such_package.hook"], GRACEFUL_IDLE_HOOKS=[too_many]):
        assert [number for number, _ in found()] == ["graceful.E014", "graceful.E016"]


@override_settings(GRACEFUL_HORSE_EXIT_HOOKS=[{"call": fine, "when": too_many}])
def test_condition_that_needs_arguments() -> None:
    """A condition that requires arguments is refused."""
    ((number, message),) = found()
    assert number == "graceful.E016"
    assert "(one: 'object', two: 'object')" in message


@pytest.mark.parametrize("horse", [False, True])
def test_registered_hooks_are_checked_too(registered: Callable[..., None], horse: bool) -> None:
    """Registered hooks are checked too."""
    registered(too_many, horse=horse)
    ((number, message),) = found()
    assert number == "graceful.E016"
    assert message.startswith(f"{'horse_exit_hook' if horse else 'exit_hook'}: the hook {HERE}.too_many cannot be ")


def test_hook_registered_and_in_the_settings(registered: Callable[..., None]) -> None:
    """A hook that is registered and in the settings is an error."""
    registered(fine)
    with override_settings(GRACEFUL_EXIT_HOOKS=[f"{HERE}.fine"], GRACEFUL_HORSE_EXIT_HOOKS=[f"{HERE}.fine"]):
        ((number, message),) = found()
    assert number == "graceful.E013"
    assert message == f"GRACEFUL_EXIT_HOOKS must not name a hook that is registered in code, got: '{HERE}.fine'"
