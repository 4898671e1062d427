"""The exit hooks of this process: those registered in code, then those in the settings.

Registering does not run anything; the worker, its horse and ``run_at_exit`` do.
A child that is forked inherits the list, but ends without running its parent's exit hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from django.utils.module_loading import import_string

from graceful.conf import settings
from graceful.core.records import HookSpec
from graceful.exceptions import InvalidSettings
from graceful.hook_entries import Problem, read_hooks

Hook = TypeVar("Hook", bound=Callable[..., object])


class NotCallable(TypeError):
    """The object at a hook's dotted path is not callable."""


_exit_hooks: list[HookSpec] = []
_horse_exit_hooks: list[HookSpec] = []


@overload
def exit_hook(call: Hook) -> Hook: ...


@overload
def exit_hook(
    *,
    name: str | None = None,
    timeout: float | None = None,
    when: str | Callable[[], object] | None = None,
) -> Callable[[Hook], Hook]: ...


def exit_hook(call: Any = None, **options: Any) -> Any:
    """Register a function that runs once in the worker, after its last job; last registered, first run.

    Use it bare or with options. Registering the same function again moves it to the front.

    Args:
        name: the name in the report, by default module and qualified name.
        timeout: seconds that it may take, by default an equal share of the time that is left.
        when: a callable or its dotted path; a false value skips the hook.

    Raises:
        InvalidSettings: an option is wrong.
    """
    return _registrar(_exit_hooks, "exit_hook", call, options)


@overload
def horse_exit_hook(call: Hook) -> Hook: ...


@overload
def horse_exit_hook(
    *,
    name: str | None = None,
    timeout: float | None = None,
    when: str | Callable[[], object] | None = None,
) -> Callable[[Hook], Hook]: ...


def horse_exit_hook(call: Any = None, **options: Any) -> Any:
    """Register a function that runs in the work horse at the end of each job; options as :func:`exit_hook`.

    Raises:
        InvalidSettings: an option is wrong.
    """
    return _registrar(_horse_exit_hooks, "horse_exit_hook", call, options)


def exit_hooks() -> tuple[HookSpec, ...]:
    """The exit hooks in the order in which they run; no two have the same name.

    Raises:
        InvalidSettings: a setting is wrong.
    """
    return _in_order(_exit_hooks, settings().exit_hooks)


def horse_exit_hooks() -> tuple[HookSpec, ...]:
    """The horse exit hooks in the order in which they run; no two have the same name.

    Raises:
        InvalidSettings: a setting is wrong.
    """
    return _in_order(_horse_exit_hooks, settings().horse_exit_hooks)


def registered_exit_hooks() -> tuple[HookSpec, ...]:
    """The exit hooks registered in code alone, in the order in which they run."""
    return tuple(reversed(_exit_hooks))


def registered_horse_exit_hooks() -> tuple[HookSpec, ...]:
    """The horse exit hooks registered in code alone, in the order in which they run."""
    return tuple(reversed(_horse_exit_hooks))


def unregister(call: Callable[..., object]) -> None:
    """Remove a function from both lists; nothing happens if it is on neither."""
    for hooks in (_exit_hooks, _horse_exit_hooks):
        hooks[:] = [spec for spec in hooks if spec.call != call]


def load(target: HookSpec | str | Callable[..., object]) -> Callable[..., object]:
    """The callable of a hook or of a dotted path.

    Raises:
        ModuleNotFoundError: a module of the path is not installed.
        ImportError: the module has no such name.
        NotCallable: the object is not callable.
    """
    path = target.call if isinstance(target, HookSpec) else target
    call = import_string(path) if isinstance(path, str) else path
    if not callable(call):
        raise NotCallable(f"{path}, of type {type(call).__name__}")
    return call


def names_missing_module(spec: HookSpec, error: ModuleNotFoundError) -> bool:
    """Whether the missing module is part of the hook's own paths, and not an import within its module."""
    paths = [path for path in (spec.call, spec.when) if isinstance(path, str)]
    return any(path.startswith(f"{error.name}.") for path in paths)


def _registrar(hooks: list[HookSpec], decorator: str, call: Any, options: dict[str, Any]) -> Any:
    if call is None:
        return lambda decorated: _registrar(hooks, decorator, decorated, options)
    found: list[Problem] = []
    specs = read_hooks(decorator, [{"call": call, **options}], found)
    if found:
        raise InvalidSettings("\n".join(problem.message for problem in found))
    hooks[:] = [spec for spec in hooks if spec.call != call]
    hooks.append(_with_own_name(specs[0], hooks))
    return call


def _in_order(registered: Iterable[HookSpec], from_settings: Iterable[HookSpec]) -> tuple[HookSpec, ...]:
    ordered: list[HookSpec] = []
    for spec in (*reversed(list(registered)), *from_settings):
        ordered.append(_with_own_name(spec, ordered))
    return tuple(ordered)


def _with_own_name(spec: HookSpec, others: Iterable[HookSpec]) -> HookSpec:
    """The hook, numbered if another one has its name: the ``close`` methods of two pools are two hooks."""
    taken = {other.name for other in others}
    name, number = spec.name, 1
    while name in taken:
        number += 1
        name = f"{spec.name} ({number})"
    return spec if name == spec.name else spec._replace(name=name)
