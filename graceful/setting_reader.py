"""Reads each ``GRACEFUL_*`` setting by its rule and collects what is wrong; :mod:`graceful.conf` makes them a whole."""

from __future__ import annotations

import difflib
import os
import pathlib
import tempfile
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

from django.conf import settings as django_settings

from graceful.core.records import HookSpec
from graceful.hook_entries import Problem, shown, timeout_rule, valid_seconds

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
    "GRACEFUL_REPORT_CONNECTIONS": 20,
    "GRACEFUL_JSON_TOKEN": None,
    "GRACEFUL_MAX_MEMORY": None,
    "GRACEFUL_MAX_AGE": None,
    "GRACEFUL_JOB_MEMORY": None,
    "GRACEFUL_BUSY_HOOKS": [],
    "GRACEFUL_IDLE_HOOKS": [],
    "GRACEFUL_IDLE_AFTER": 10.0,
    "GRACEFUL_PLATFORM_TIMEOUT": None,
    "GRACEFUL_PROBE_PORT": None,
}
INTERRUPTED_JOBS = ("requeue", "fail")
LONGEST_RELEASE = 200
SHORTEST_TOKEN = 16
MOST_PORT = 65535
LONGEST_KEEP = timedelta(days=36500)
MOST_INTERRUPTIONS = 1_000_000
MOST_MEGABYTES = 999_999
SECONDS_HINT = "Give the seconds as a number, for instance 25 or 2.5."


class Reader:
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
        seconds = self.seconds_or_none(key)
        return float(str(DEFAULTS[key])) if seconds is None else seconds

    def seconds_or_none(self, key: str) -> float | None:
        value = self.value(key)
        if valid_seconds(value):
            return float(value)
        if value is not None or DEFAULTS[key] is not None:
            self.found.append(Problem("E002", key, timeout_rule(key, value), SECONDS_HINT))
        return None

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

    def report_connections(self) -> int | None:
        key = "GRACEFUL_REPORT_CONNECTIONS"
        value = self.value(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        hint = "So many workers at once store their report themselves, each over a database connection of its own."
        self.wrong("E034", key, "a whole number from 1, or None for any number", hint)
        return 20

    def megabytes(self, number: str, key: str) -> int | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_MEGABYTES:
            return value
        rule = f"a whole number of MB from 1 to {MOST_MEGABYTES}, or None"
        self.wrong(number, key, rule, "For instance 512; None sets no limit.")
        return None

    def max_age(self) -> float | None:
        key = "GRACEFUL_MAX_AGE"
        value = self.value(key)
        if value is None:
            return None
        if valid_seconds(value):
            return float(value)
        self.found.append(Problem("E023", key, timeout_rule(key, value), "For instance 3600; None sets no limit."))
        return None

    def probe_port(self) -> int | None:
        key = "GRACEFUL_PROBE_PORT"
        value = self.value(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_PORT):
            return value
        hint = "None: no probes over HTTP, unless --probe-port says so."
        self.wrong("E025", key, f"a whole number from 1 to {MOST_PORT}, or None", hint)
        return None

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
