"""The ``GRACEFUL_*`` settings: read late, validated as a whole, cached until a test overrides one.

Every wrong value is a :class:`Problem` with the key, the rule and the value in its message. ``problems()`` lists
them for the system checks; ``settings()`` raises them all at once.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from django.core.signals import setting_changed

from graceful.core.records import HookSpec
from graceful.exceptions import InvalidSettings
from graceful.hook_entries import Problem, read_hooks, timeout_rule, valid_seconds
from graceful.setting_reader import PREFIX, SECONDS_HINT, Reader


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
        report_connections: how many workers at once may store their report in the database; None for any number.
        max_memory: above so many MB of worker and work horse the worker ends between two jobs; None: never.
        max_age: so many seconds after its start as well; None: never.
        job_memory: a job whose process has more MB than this fails; None: none does.
        busy_hooks: ``GRACEFUL_BUSY_HOOKS``, in the order in which they run.
        idle_hooks: ``GRACEFUL_IDLE_HOOKS``, in the order in which they run.
        idle_after: seconds without a job after which a worker counts as idle.
        platform_timeout: seconds that the platform waits before SIGKILL, where the project says so.
        json_token: opens the JSON of :mod:`graceful.urls` without a session; None if only sessions do.
        probe_port: port on which workers answer probes; None if they do not.
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
    report_connections: int | None = 20
    max_memory: int | None = None
    max_age: float | None = None
    job_memory: int | None = None
    busy_hooks: tuple[HookSpec, ...] = ()
    idle_hooks: tuple[HookSpec, ...] = ()
    idle_after: float = 10.0
    platform_timeout: float | None = None
    json_token: str | None = field(default=None, repr=False)
    probe_port: int | None = None

    def with_timeout(self, seconds: float) -> Settings:
        """These settings with another grace period, as ``--timeout`` asks for it.

        Raises:
            InvalidSettings: the grace period is no valid number of seconds, or the hooks timeout is not below it.
        """
        found: list[Problem] = []
        if not valid_seconds(seconds):
            found.append(Problem("E002", "--timeout", timeout_rule("--timeout", seconds), SECONDS_HINT))
        else:
            found.extend(_shares("--timeout", float(seconds), self.hooks_timeout, self.interrupt_timeout))
        _raise_errors(found)
        return replace(self, timeout=float(seconds))

    def with_recycling(self, max_memory: int | None, max_age: float | None) -> Settings:
        """These settings with the limits that ``--max-memory`` and ``--max-age`` ask for, where they are given."""
        return replace(
            self,
            max_memory=self.max_memory if max_memory is None else max_memory,
            max_age=self.max_age if max_age is None else max_age,
        )

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


def read() -> tuple[Settings, list[Problem]]:
    """The settings and their problems; an invalid value is replaced by its default."""
    reader = Reader()
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
        report_connections=reader.report_connections(),
        max_memory=reader.megabytes("E022", "GRACEFUL_MAX_MEMORY"),
        max_age=reader.max_age(),
        job_memory=reader.megabytes("E024", "GRACEFUL_JOB_MEMORY"),
        busy_hooks=read_hooks("GRACEFUL_BUSY_HOOKS", reader.value("GRACEFUL_BUSY_HOOKS"), reader.found),
        idle_hooks=read_hooks("GRACEFUL_IDLE_HOOKS", reader.value("GRACEFUL_IDLE_HOOKS"), reader.found),
        idle_after=reader.seconds("GRACEFUL_IDLE_AFTER"),
        platform_timeout=reader.seconds_or_none("GRACEFUL_PLATFORM_TIMEOUT"),
        json_token=reader.json_token(),
        probe_port=reader.probe_port(),
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
