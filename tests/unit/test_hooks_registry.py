"""Registering exit hooks, their order and names, and loading them."""

from __future__ import annotations

import pytest
from django.test import override_settings

from graceful.core.records import HookSpec
from graceful.exceptions import InvalidSettings
from graceful.hooks import registry
from graceful.hooks.registry import (
    NotCallable,
    exit_hook,
    exit_hooks,
    horse_exit_hook,
    horse_exit_hooks,
    load,
    registered_exit_hooks,
    registered_horse_exit_hooks,
    unregister,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks of this test only."""
    monkeypatch.setattr(registry, "_exit_hooks", [])
    monkeypatch.setattr(registry, "_horse_exit_hooks", [])


class Pool:
    """Something with a method to be called at exit."""

    def close(self) -> None: ...


def first() -> None:
    """A hook."""


def second() -> None:
    """Another."""


def names(specs: tuple[HookSpec, ...]) -> list[str]:
    """Their names, without this module's."""
    return [spec.name.removeprefix(f"{__name__}.") for spec in specs]


@override_settings(GRACEFUL_EXIT_HOOKS=["a.b", "c.d"], GRACEFUL_HORSE_EXIT_HOOKS=["e.f"])
def test_order() -> None:
    """Hooks run last registered first, then those of the settings from top to bottom."""
    exit_hook(first)
    exit_hook(second)
    horse_exit_hook(first)
    horse_exit_hook(second)
    assert names(exit_hooks()) == ["second", "first", "a.b", "c.d"]
    assert names(horse_exit_hooks()) == ["second", "first", "e.f"]
    assert names(registered_exit_hooks()) == ["second", "first"]
    assert names(registered_horse_exit_hooks()) == ["second", "first"]


def test_decorators_give_the_function_back() -> None:
    """The decorators return the function itself."""
    assert exit_hook(first) is first
    assert exit_hook(name="x", timeout=2, when="a.b")(first) is first
    assert exit_hooks() == (HookSpec(first, "x", timeout=2.0, when="a.b"),)


def test_registering_again_moves_it_to_the_front() -> None:
    """A function registered again moves to the front and runs once."""
    exit_hook(first)
    exit_hook(second)
    exit_hook(first)
    assert names(exit_hooks()) == ["first", "second"]


def test_two_hooks_of_one_name_are_numbered() -> None:
    """Two hooks of the same name are numbered."""
    pools = Pool(), Pool()
    for pool in pools:
        exit_hook(pool.close)
    assert names(exit_hooks()) == ["Pool.close (2)", "Pool.close"]
    assert [spec.call for spec in exit_hooks()] == [pools[1].close, pools[0].close]


@override_settings(GRACEFUL_EXIT_HOOKS=[first])
def test_registered_and_in_the_settings() -> None:
    """A registered hook and one of the settings with its name get different names."""
    exit_hook(first)
    assert names(exit_hooks()) == ["first", "first (2)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": -1}, r"exit_hook\[0\]\['timeout'\] must be a positive number of seconds, got: -1"),
        ({"time_out": 1}, r"exit_hook\[0\] has an unknown key, got: 'time_out'"),
        ({"name": ""}, r"exit_hook\[0\]\['name'\] must be a string of 1 to 200 characters, got: ''"),
    ],
)
def test_wrong_option(options: dict[str, object], message: str) -> None:
    """An invalid option of a decorator is an error at once."""
    with pytest.raises(InvalidSettings, match=message):
        exit_hook(**options)(first)  # type: ignore[call-overload]
    assert exit_hooks() == ()


def test_unregister() -> None:
    """An unregistered hook no longer runs."""
    exit_hook(first)
    horse_exit_hook(first)
    exit_hook(second)
    unregister(first)
    assert names(exit_hooks()) == ["second"]
    assert horse_exit_hooks() == ()


@override_settings(GRACEFUL_TIMEOUT=-1)
def test_wrong_settings_are_raised() -> None:
    """Invalid settings raise InvalidSettings."""
    with pytest.raises(InvalidSettings):
        exit_hooks()


def test_load() -> None:
    """Paths and callables are loaded."""
    assert load(HookSpec(first, "x")) is first
    assert load(HookSpec(f"{__name__}.first", "x")) is first
    assert load(f"{__name__}.second") is second


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("no_such_package.hook", ModuleNotFoundError, "no_such_package"),
        (f"{__name__}.misspelt", ImportError, "misspelt"),
        ("os.sep", NotCallable, "os.sep, of type str"),
    ],
)
def test_load_says_what_is_wrong(path: str, error: type[Exception], message: str) -> None:
    """A missing module, a missing name and a non-callable raise different errors."""
    with pytest.raises(error, match=message) as caught:
        load(path)
    assert type(caught.value) is error
