"""The entries of ``GRACEFUL_EXIT_HOOKS`` and ``GRACEFUL_HORSE_EXIT_HOOKS``, read into :class:`HookSpec`.

An entry is a dotted path, a callable, or a dict with the keys ``call``, ``name``, ``timeout``, ``optional``
and ``when``. Nothing is imported here: the system checks and the hook runner do that.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from graceful.core.records import HookSpec

LONGEST_SECONDS = 7 * 24 * 3600
"""A week: more than any platform's grace period, and within the range of every clock and timer."""
LONGEST_NAME = 200
ENTRY_KEYS = ("call", "name", "timeout", "optional", "when")


class Problem(NamedTuple):
    """Something wrong or doubtful in the settings.

    Args:
        id: the number of the rule, ``E001`` for an error or ``W001`` for a warning.
        key: the name of the setting.
        message: key, rule and value.
        hint: what to do about it.
    """

    id: str
    key: str
    message: str
    hint: str

    @property
    def is_error(self) -> bool:
        return self.id.startswith("E")


def valid_seconds(value: object) -> bool:
    """Whether ``value`` is a positive, finite number of at most a week's seconds; a bool is no number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_SECONDS


def timeout_rule(key: str, value: object) -> str:
    """The message for an invalid number of seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > LONGEST_SECONDS:
        return f"{key} must be at most {LONGEST_SECONDS} seconds, got: {shown(value)}"
    return f"{key} must be a positive number of seconds, got: {shown(value)}"


def shown(value: object) -> str:
    """``repr(value)``, at most 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def default_name(call: str | Callable[..., object]) -> str:
    """The name of a hook that was given none: its dotted path, or its module and qualified name."""
    if isinstance(call, str):
        return call
    while isinstance(call, functools.partial):
        call = call.func
    owner = call if hasattr(call, "__qualname__") else type(call)
    module = getattr(owner, "__module__", None) or "builtins"
    return f"{module}.{owner.__qualname__}"[:LONGEST_NAME]


def read_hooks(key: str, entries: object, found: list[Problem]) -> tuple[HookSpec, ...]:
    """The hooks in one setting; problems are appended to ``found``, and invalid entries left out.

    Args:
        key: the name of the setting.
        entries: its value.
        found: collects the problems.
    """
    if not isinstance(entries, (list, tuple)):
        hint = 'For instance ["shop.hooks.flush_counters"].'
        found.append(Problem("E009", key, f"{key} must be a list of hooks, got: {shown(entries)}", hint))
        return ()
    specs: dict[str, HookSpec] = {}
    for index, entry in enumerate(entries):
        spec = _read_entry(key, f"{key}[{index}]", entry, found)
        if spec is None:
            continue
        if spec.name in specs:
            message = f"{key}[{index}] must have a name of its own, got: {spec.name!r} again"
            hint = 'Name it with {"call": ..., "name": "..."}, or remove it if it is there twice.'
            found.append(Problem("E013", key, message, hint))
        specs.setdefault(spec.name, spec)
    return tuple(specs.values())


def _read_entry(key: str, where: str, entry: Any, found: list[Problem]) -> HookSpec | None:
    parts: Mapping[Any, Any] = entry if isinstance(entry, Mapping) else {"call": entry}
    count = len(found)
    for unknown in (part for part in parts if part not in ENTRY_KEYS):
        close = difflib.get_close_matches(str(unknown), ENTRY_KEYS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(ENTRY_KEYS)}."
        found.append(Problem("E011", key, f"{where} has an unknown key, got: {shown(unknown)}", hint))
    if not _can_be_called(parts.get("call")):
        hint = "A dotted path has the form package.module.function; in a dict it stands under the key call."
        rule = "a dotted path, a callable, or a dict with the key call"
        found.append(Problem("E010", key, f"{where} must be {rule}, got: {shown(entry)}", hint))

    def wrong(part: str, rule: str, hint: str) -> None:
        message = f"{where}[{part!r}] must be {rule}, got: {shown(parts[part])}"
        found.append(Problem("E012", key, message, hint))

    name = parts.get("name")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME):
        wrong("name", f"a string of 1 to {LONGEST_NAME} characters", "It is the hook's name in the report.")
    timeout = parts.get("timeout")
    if timeout is not None and not valid_seconds(timeout):
        wrong("timeout", "a positive number of seconds", "Leave it out for an equal share of the time that is left.")
    optional = parts.get("optional", False)
    if not isinstance(optional, bool):
        wrong("optional", "True or False", "True skips the hook where its module is not installed.")
    when = parts.get("when")
    if when is not None and not _can_be_called(when):
        wrong("when", "a dotted path or a callable", "The hook is skipped where it returns a false value.")
    if len(found) > count:
        return None
    return HookSpec(
        call=parts["call"],
        name=name or default_name(parts["call"]),
        timeout=None if timeout is None else float(timeout),
        optional=optional,
        when=when,
    )


def _can_be_called(value: object) -> bool:
    if isinstance(value, str):
        path = value.split(".")
        return len(path) > 1 and all(part.isidentifier() for part in path)
    return callable(value)
