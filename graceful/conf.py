"""The ``GRACEFUL_*`` settings: read late, validated as a whole, cached until a test overrides one.

Every wrong value is a :class:`Problem` with the key, the rule and the value in its message. ``problems()`` lists
them for the system checks; ``settings()`` raises them all at once.
"""

from __future__ import annotations

import difflib
import functools
import os
import pathlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from graceful.core.records import HookSpec
from graceful.exceptions import InvalidSettings
from graceful.hook_entries import Problem, read_hooks, shown, timeout_rule, valid_seconds

PREFIX = "GRACEFUL_"
DEFAULTS: dict[str, object] = {
    "GRACEFUL_EXIT_HOOKS": [],
    "GRACEFUL_HORSE_EXIT_HOOKS": [],
    "GRACEFUL_TIMEOUT": 25.0,
    "GRACEFUL_HOOKS_TIMEOUT": 5.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 3.0,
    "GRACEFUL_INTERRUPTED_JOBS": "requeue",
    "GRACEFUL_MAX_INTERRUPTIONS": 3,
    "GRACEFUL_RELEASE": "",
    "GRACEFUL_REPORTS_KEEP": 90,
    "GRACEFUL_SPOOL_DIR": None,
    "GRACEFUL_JSON_TOKEN": None,
}
INTERRUPTED_JOBS = ("requeue", "fail")
LONGEST_RELEASE = 200
SHORTEST_TOKEN = 16
LONGEST_KEEP = timedelta(days=36500)
MOST_INTERRUPTIONS = 1_000_000


@dataclass(frozen=True)
class Settings:
    """All settings, valid and with their defaults filled in.

    Args:
        exit_hooks: ``GRACEFUL_EXIT_HOOKS``, in the order in which they run.
        horse_exit_hooks: ``GRACEFUL_HORSE_EXIT_HOOKS``, in the order in which they run.
        timeout: seconds from the signal to the end of the process.
        hooks_timeout: seconds of these that are reserved for hooks and report.
        interrupt_timeout: seconds from ``JobInterrupted`` to SIGKILL.
        interrupted_jobs: policy for interrupted jobs without one of their own.
        max_interruptions: how often a job may be interrupted before it fails.
        release: label of the running release.
        reports_keep: older reports are removed.
        spool_dir: directory for reports while neither Redis nor the database is reachable.
        json_token: opens the JSON of :mod:`graceful.urls` without a session; None if only sessions do.
    """

    exit_hooks: tuple[HookSpec, ...]
    horse_exit_hooks: tuple[HookSpec, ...]
    timeout: float
    hooks_timeout: float
    interrupt_timeout: float
    interrupted_jobs: Literal["requeue", "fail"]
    max_interruptions: int
    release: str
    reports_keep: timedelta
    spool_dir: pathlib.Path
    json_token: str | None = field(default=None, repr=False)

    def with_timeout(self, seconds: float) -> Settings:
        """These settings with another grace period, as ``--timeout`` asks for it.

        Raises:
            InvalidSettings: the grace period is no valid number of seconds, or the hooks timeout is not below it.
        """
        found: list[Problem] = []
        if not valid_seconds(seconds):
            found.append(Problem("E002", "--timeout", timeout_rule("--timeout", seconds), _SECONDS_HINT))
        else:
            found.extend(_shares("--timeout", float(seconds), self.hooks_timeout, self.interrupt_timeout))
        _raise_errors(found)
        return replace(self, timeout=float(seconds))

    def warnings(self, key: str) -> list[Problem]:
        """Warnings about the grace period and its parts; ``key`` names its source."""
        return _shares(key, self.timeout, self.hooks_timeout, self.interrupt_timeout)


@functools.cache
def settings() -> Settings:
    """The validated settings; cached until Django's ``setting_changed`` tells of a change.

    Raises:
        InvalidSettings: one or more settings are wrong; the message names key, rule and value of each.
    """
    valid, found = read()
    _raise_errors(found)
    return valid


def problems() -> list[Problem]:
    """All errors and warnings in the settings; ids that begin with W are warnings."""
    return read()[1]


def clear() -> None:
    """Forget the cached settings; the next :func:`settings` reads them anew."""
    settings.cache_clear()


def _clear_on_change(*, setting: str, **_: object) -> None:
    if setting.startswith(PREFIX):
        clear()


setting_changed.connect(_clear_on_change, dispatch_uid="graceful.conf")


def _raise_errors(found: Iterable[Problem]) -> None:
    errors = [problem for problem in found if problem.is_error]
    if errors:
        raise InvalidSettings("\n".join(f"{problem.message}\n\tHINT: {problem.hint}" for problem in errors))


_SECONDS_HINT = "Give the seconds as a number, for instance 25 or 2.5."


def read() -> tuple[Settings, list[Problem]]:
    """The settings and their problems; an invalid value is replaced by its default."""
    reader = _Reader()
    reader.refuse_unknown_names()
    timeout = reader.seconds("GRACEFUL_TIMEOUT")
    hooks_timeout = reader.seconds("GRACEFUL_HOOKS_TIMEOUT")
    interrupt_timeout = reader.seconds("GRACEFUL_INTERRUPT_TIMEOUT")
    if not reader.found_for("GRACEFUL_TIMEOUT", "GRACEFUL_HOOKS_TIMEOUT", "GRACEFUL_INTERRUPT_TIMEOUT"):
        reader.found.extend(_shares("GRACEFUL_TIMEOUT", timeout, hooks_timeout, interrupt_timeout))
    exit_hooks = read_hooks("GRACEFUL_EXIT_HOOKS", reader.value("GRACEFUL_EXIT_HOOKS"), reader.found)
    horse_hooks = read_hooks("GRACEFUL_HORSE_EXIT_HOOKS", reader.value("GRACEFUL_HORSE_EXIT_HOOKS"), reader.found)
    reader.warn_of_long_hooks("GRACEFUL_EXIT_HOOKS", exit_hooks, hooks_timeout)
    read_settings = Settings(
        exit_hooks=exit_hooks,
        horse_exit_hooks=horse_hooks,
        timeout=timeout,
        hooks_timeout=hooks_timeout,
        interrupt_timeout=interrupt_timeout,
        interrupted_jobs=reader.interrupted_jobs(),
        max_interruptions=reader.max_interruptions(),
        release=reader.release(),
        reports_keep=reader.reports_keep(),
        spool_dir=reader.spool_dir(),
        json_token=reader.json_token(),
    )
    return read_settings, reader.found


def _shares(key: str, timeout: float, hooks_timeout: float, interrupt_timeout: float) -> list[Problem]:
    """Whether the grace period has room for its parts; ``key`` names its source."""
    if hooks_timeout >= timeout:
        message = f"GRACEFUL_HOOKS_TIMEOUT must be below {key} ({timeout:g}), got: {hooks_timeout:g}"
        hint = f"It is the part of {key} that is kept for hooks and report: lower it, or raise {key}."
        return [Problem("E003", "GRACEFUL_HOOKS_TIMEOUT", message, hint)]
    if hooks_timeout + interrupt_timeout >= timeout:
        total = hooks_timeout + interrupt_timeout
        message = (
            f"GRACEFUL_HOOKS_TIMEOUT and GRACEFUL_INTERRUPT_TIMEOUT together should be below {key} ({timeout:g}), "
            f"got: {total:g}"
        )
        hint = "A running job is interrupted at once, with no time to finish. Lower one, or raise GRACEFUL_TIMEOUT."
        return [Problem("W001", "GRACEFUL_INTERRUPT_TIMEOUT", message, hint)]
    return []


class _Reader:
    """Reads the settings and collects their problems."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def value(self, key: str) -> Any:
        return getattr(django_settings, key, DEFAULTS[key])

    def found_for(self, *keys: str) -> bool:
        return any(problem.key in keys for problem in self.found)

    def wrong(self, number: str, key: str, rule: str, hint: str) -> None:
        message = f"{key} must be {rule}, got: {shown(self.value(key))}"
        self.found.append(Problem(number, key, message, hint))

    def refuse_unknown_names(self) -> None:
        for key in sorted(set(dir(django_settings)) - DEFAULTS.keys()):
            if key.startswith(PREFIX):
                # Without the prefix, which alone would make any two names similar.
                known = [name.removeprefix(PREFIX) for name in DEFAULTS]
                close = difflib.get_close_matches(key.removeprefix(PREFIX), known, n=1)
                meant = f"; did you mean {PREFIX}{close[0]}?" if close else ""
                hint = f"Known are: {', '.join(DEFAULTS)}."
                self.found.append(Problem("E001", key, f"{key} is not a setting of django-rq-graceful{meant}", hint))

    def seconds(self, key: str) -> float:
        if valid_seconds(self.value(key)):
            return float(self.value(key))
        self.found.append(Problem("E002", key, timeout_rule(key, self.value(key)), _SECONDS_HINT))
        return float(str(DEFAULTS[key]))

    def warn_of_long_hooks(self, key: str, hooks: Iterable[HookSpec], hooks_timeout: float) -> None:
        if self.found_for("GRACEFUL_HOOKS_TIMEOUT"):
            return
        for spec in hooks:
            if spec.timeout is not None and spec.timeout > hooks_timeout:
                message = (
                    f"{key}: the timeout of {spec.name} should be at most GRACEFUL_HOOKS_TIMEOUT "
                    f"({hooks_timeout:g}), got: {spec.timeout:g}"
                )
                hint = "It will be cut to the time that all hooks have together; raise GRACEFUL_HOOKS_TIMEOUT."
                self.found.append(Problem("W002", key, message, hint))

    def interrupted_jobs(self) -> Literal["requeue", "fail"]:
        key = "GRACEFUL_INTERRUPTED_JOBS"
        value = self.value(key)
        if not isinstance(value, str) or value not in INTERRUPTED_JOBS:
            hint = "requeue puts an interrupted job back at the front of its queue, fail lets it fail."
            self.wrong("E004", key, '"requeue" or "fail"', hint)
        return "fail" if value == "fail" else "requeue"

    def max_interruptions(self) -> int:
        key = "GRACEFUL_MAX_INTERRUPTIONS"
        value = self.value(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_INTERRUPTIONS:
            return value
        hint = "So many interruptions are forgiven before a job fails; 0 lets it fail at the first."
        self.wrong("E005", key, f"a whole number from 0 to {MOST_INTERRUPTIONS}", hint)
        return 3

    def release(self) -> str:
        key = "GRACEFUL_RELEASE"
        value = self.value(key)
        if isinstance(value, str) and len(value) <= LONGEST_RELEASE:
            return value
        self.wrong("E006", key, f"a string of at most {LONGEST_RELEASE} characters", "For instance a version or a tag.")
        return ""

    def reports_keep(self) -> timedelta:
        key = "GRACEFUL_REPORTS_KEEP"
        value = self.value(key)
        if isinstance(value, timedelta) and timedelta(0) < value <= LONGEST_KEEP:
            return value
        if not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value <= LONGEST_KEEP.days:
            return timedelta(days=value)
        rule = f"a positive number of days or a timedelta, at most {LONGEST_KEEP.days} days"
        self.wrong("E007", key, rule, "For instance 90, or timedelta(hours=12).")
        return timedelta(days=90)

    def spool_dir(self) -> pathlib.Path:
        key = "GRACEFUL_SPOOL_DIR"
        value = self.value(key)
        default = _temporary_directory() / f"django-rq-graceful-{os.getuid()}"
        if value is None:
            return default
        if isinstance(value, (str, pathlib.PurePath)) and os.path.isabs(value):
            # os.path, since Path's methods raise if a parent directory may not be searched.
            if not os.path.exists(value) or os.path.isdir(value):
                return pathlib.Path(value)
            self.wrong("E008", key, "a directory, or the path of one that can be made", "A file is there.")
            return default
        self.wrong(
            "E008", key, "an absolute path, as a string or a Path", "None stands for a directory in the tempdir."
        )
        return default

    def json_token(self) -> str | None:
        key = "GRACEFUL_JSON_TOKEN"
        value = self.value(key)
        if value is None:
            return None
        printable = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
        if printable and len(value) >= SHORTEST_TOKEN:
            return str(value)
        # The value is a secret and not shown.
        message = f"{key} must be a string of at least {SHORTEST_TOKEN} printable ASCII characters without spaces"
        hint = "For instance what secrets.token_urlsafe(32) returns; None lets only logged-in users read the JSON."
        self.found.append(Problem("E019", key, message, hint))
        return None


def _temporary_directory() -> pathlib.Path:
    """The system's; where nothing can be written there now, because the disk is full or read-only, the usual one."""
    try:
        return pathlib.Path(tempfile.gettempdir())
    except FileNotFoundError:
        return pathlib.Path("/tmp")
