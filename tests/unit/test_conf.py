"""The settings: defaults, every rule, caching."""

from __future__ import annotations

import errno
import math
import os
import pathlib
import tempfile
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from django.test import override_settings

from graceful.conf import Settings, problems, settings
from graceful.core.records import HookSpec
from graceful.exceptions import InvalidSettings


def some_hook() -> None:
    """Stands in for a hook."""


def test_probe_port() -> None:
    """A port, or None for no probes."""
    for value in (0, 65536, "8080", True, 80.0):
        number, message = only_problem(GRACEFUL_PROBE_PORT=value)
        rule = f"GRACEFUL_PROBE_PORT must be a whole number from 1 to 65535, or None, got: {value!r}"
        assert (number, message) == ("E025", rule)
    with override_settings(GRACEFUL_PROBE_PORT=8080):
        assert settings().probe_port == 8080
    assert settings().probe_port is None


class Pool:
    """Something with a method to be called at exit."""

    def __call__(self) -> None: ...

    def close(self) -> None: ...


def found(**overridden: Any) -> list[tuple[str, str]]:
    """Ids and messages of the problems that these settings have."""
    with override_settings(**overridden):
        return [(problem.id, problem.message) for problem in problems()]


def only_problem(**overridden: Any) -> tuple[str, str]:
    """The one problem that these settings have, with a hint."""
    with override_settings(**overridden):
        (problem,) = problems()
        assert problem.hint
        return problem.id, problem.message


@override_settings(GRACEFUL_SPOOL_DIR=None)
def test_no_temporary_directory_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can be read on a full or read-only disk; the spool is needed by no worker that reaches Redis."""

    def full() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", full)
    assert settings().spool_dir == pathlib.Path(f"/tmp/django-rq-graceful-{os.getuid()}")


@override_settings(GRACEFUL_SPOOL_DIR=None)
def test_defaults() -> None:
    """Without settings the documented defaults apply."""
    read = settings()
    assert read == Settings(
        exit_hooks=(),
        horse_exit_hooks=(),
        timeout=25.0,
        hooks_timeout=5.0,
        interrupt_timeout=3.0,
        interrupted_jobs="requeue",
        max_interruptions=3,
        release="",
        reports_keep=timedelta(days=90),
        spool_dir=read.spool_dir,
    )
    assert read.spool_dir.is_absolute()
    assert read.spool_dir.name.startswith("django-rq-graceful-")
    assert problems() == []


def test_values_are_taken_over() -> None:
    """Every setting is read."""
    with override_settings(
        GRACEFUL_EXIT_HOOKS=["a.b"],
        GRACEFUL_HORSE_EXIT_HOOKS=("c.d",),
        GRACEFUL_TIMEOUT=60,
        GRACEFUL_HOOKS_TIMEOUT=10,
        GRACEFUL_INTERRUPT_TIMEOUT=1.5,
        GRACEFUL_INTERRUPTED_JOBS="fail",
        GRACEFUL_MAX_INTERRUPTIONS=0,
        GRACEFUL_RELEASE="v7",
        GRACEFUL_REPORTS_KEEP=timedelta(hours=1),
        GRACEFUL_SPOOL_DIR=pathlib.Path("/var/spool/x"),
        GRACEFUL_REPORT_CONNECTIONS=7,
        GRACEFUL_MAX_MEMORY=512,
        GRACEFUL_MAX_AGE=3600,
        GRACEFUL_JOB_MEMORY=256,
    ):
        assert settings() == Settings(
            exit_hooks=(HookSpec("a.b", "a.b"),),
            horse_exit_hooks=(HookSpec("c.d", "c.d"),),
            timeout=60.0,
            hooks_timeout=10.0,
            interrupt_timeout=1.5,
            interrupted_jobs="fail",
            max_interruptions=0,
            release="v7",
            reports_keep=timedelta(hours=1),
            spool_dir=pathlib.Path("/var/spool/x"),
            report_connections=7,
            max_memory=512,
            max_age=3600.0,
            job_memory=256,
        )


def test_cached_until_a_setting_changes() -> None:
    """Settings are cached until one of them changes."""
    assert settings() is settings()
    with override_settings(GRACEFUL_RELEASE="inner"):
        assert settings().release == "inner"
    assert settings().release == ""


def test_another_setting_leaves_the_cache_alone() -> None:
    """Other settings do not clear the cache."""
    before = settings()
    with override_settings(DEBUG=True):
        assert settings() is before


@pytest.mark.parametrize(
    "key",
    [
        "GRACEFUL_TIMEOUT",
        "GRACEFUL_HOOKS_TIMEOUT",
        "GRACEFUL_INTERRUPT_TIMEOUT",
        "GRACEFUL_IDLE_AFTER",
    ],
)
@pytest.mark.parametrize(
    "value", [-5, 0, 0.0, True, "5", None, math.nan, math.inf, -math.inf, 10**400, 604801, Fraction(1, 2), []]
)
def test_seconds_that_are_none(key: str, value: object) -> None:
    """Anything but a positive number of seconds is refused."""
    number, message = only_problem(**{key: value})
    assert number == "E002"
    too_long = isinstance(value, (int, float)) and value > 604800
    rule = "at most 604800 seconds" if too_long else "a positive number of seconds"
    assert message.startswith(f"{key} must be {rule}, got: ")


def test_the_platforms_time() -> None:
    """What the platform waits is a number of seconds, or None for what the platform tells."""
    with override_settings(GRACEFUL_PLATFORM_TIMEOUT=120):
        assert settings().platform_timeout == 120.0
    assert settings().platform_timeout is None
    rule = "GRACEFUL_PLATFORM_TIMEOUT must be a positive number of seconds, got: "
    assert only_problem(GRACEFUL_PLATFORM_TIMEOUT=0) == ("E002", f"{rule}0")
    assert only_problem(GRACEFUL_PLATFORM_TIMEOUT="2min") == ("E002", f"{rule}'2min'")


def test_message_has_key_rule_and_value() -> None:
    """The message contains key, rule and value."""
    assert only_problem(GRACEFUL_TIMEOUT=-5) == (
        "E002",
        "GRACEFUL_TIMEOUT must be a positive number of seconds, got: -5",
    )


@pytest.mark.parametrize(("timeout", "hooks_timeout"), [(5, 5), (4, 5)])
def test_hooks_timeout_not_below_the_whole(timeout: float, hooks_timeout: float) -> None:
    """A hooks timeout that is not below the whole is refused."""
    assert only_problem(GRACEFUL_TIMEOUT=timeout, GRACEFUL_HOOKS_TIMEOUT=hooks_timeout) == (
        "E003",
        f"GRACEFUL_HOOKS_TIMEOUT must be below GRACEFUL_TIMEOUT ({timeout}), got: {hooks_timeout}",
    )


def test_no_time_for_a_running_job_is_a_warning() -> None:
    """A budget that leaves a running job no time is a warning."""
    number, message = only_problem(GRACEFUL_TIMEOUT=8, GRACEFUL_HOOKS_TIMEOUT=5, GRACEFUL_INTERRUPT_TIMEOUT=3)
    assert number == "W001"
    assert message.endswith("together should be below GRACEFUL_TIMEOUT (8), got: 8")
    with override_settings(GRACEFUL_TIMEOUT=8):
        assert settings().timeout == 8.0


@pytest.mark.parametrize("value", ["drop", "", None, True, ["requeue"], "Requeue"])
def test_interrupted_jobs_is_one_of_two_words(value: object) -> None:
    """Only the two policies are accepted."""
    assert only_problem(GRACEFUL_INTERRUPTED_JOBS=value) == (
        "E004",
        f'GRACEFUL_INTERRUPTED_JOBS must be "requeue" or "fail", got: {value!r}',
    )


@pytest.mark.parametrize("value", [-1, 1.0, True, "3", None, 1_000_001])
def test_max_interruptions_is_a_whole_number(value: object) -> None:
    """The maximum of interruptions is a whole number from 0."""
    number, message = only_problem(GRACEFUL_MAX_INTERRUPTIONS=value)
    assert number == "E005"
    assert message.endswith(f"got: {value!r}")


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3"])
def test_report_connections_is_a_whole_number(value: object) -> None:
    """How many may store reports at once is a whole number from 1, or None."""
    number, message = only_problem(GRACEFUL_REPORT_CONNECTIONS=value)
    assert number == "E034"
    assert message.endswith(f"got: {value!r}")
    with override_settings(GRACEFUL_REPORT_CONNECTIONS=None):
        assert settings().report_connections is None


@pytest.mark.parametrize("value", [7, None, b"v7", "x" * 201])
def test_release_is_a_short_string(value: object) -> None:
    """A release is a short string."""
    assert only_problem(GRACEFUL_RELEASE=value)[0] == "E006"


@pytest.mark.parametrize(
    "value", [0, -1, True, "90", None, math.nan, math.inf, 36501, timedelta(0), timedelta(days=-1), timedelta.max]
)
def test_reports_keep_is_a_time(value: object) -> None:
    """The retention is a positive number of days or a timedelta."""
    assert only_problem(GRACEFUL_REPORTS_KEEP=value)[0] == "E007"


@pytest.mark.parametrize(("value", "expected"), [(7, timedelta(days=7)), (0.5, timedelta(hours=12))])
def test_reports_keep_takes_days(value: float, expected: timedelta) -> None:
    """A number is taken as days."""
    with override_settings(GRACEFUL_REPORTS_KEEP=value):
        assert settings().reports_keep == expected


@pytest.mark.parametrize("value", ["spool", "", 7, pathlib.Path("spool")])
def test_spool_dir_is_absolute(value: object) -> None:
    """The spool directory is an absolute path."""
    assert only_problem(GRACEFUL_SPOOL_DIR=value)[0] == "E008"


def test_spool_dir_is_no_file(tmp_path: pathlib.Path) -> None:
    """A spool directory that is a file is refused."""
    (tmp_path / "file").touch()
    assert only_problem(GRACEFUL_SPOOL_DIR=tmp_path / "file")[0] == "E008"
    for path in (tmp_path, tmp_path / "not" / "yet", tmp_path / ("x" * 300)):
        with override_settings(GRACEFUL_SPOOL_DIR=path):
            assert settings().spool_dir == path


def test_unknown_name_with_a_close_one() -> None:
    """An unknown setting is refused, with the similar name as a hint."""
    with override_settings(GRACEFUL_TIMOUT=3):
        (problem,) = problems()
    assert (problem.id, problem.key) == ("E001", "GRACEFUL_TIMOUT")
    assert problem.message == "GRACEFUL_TIMOUT is not a setting of django-rq-graceful; did you mean GRACEFUL_TIMEOUT?"
    assert problem.hint.startswith("Known are: GRACEFUL_EXIT_HOOKS, ")


def test_unknown_name_with_no_close_one() -> None:
    """An unknown setting without a similar name gets no guess."""
    with override_settings(GRACEFUL_XQJ_9=3):
        (problem,) = problems()
    assert problem.hint.startswith("Known are: GRACEFUL_EXIT_HOOKS")


def test_all_problems_are_raised_at_once() -> None:
    """All problems are raised together, each with its hint."""
    with override_settings(GRACEFUL_TIMEOUT=0, GRACEFUL_RELEASE=7), pytest.raises(InvalidSettings) as caught:
        settings()
    assert str(caught.value).splitlines() == [
        "GRACEFUL_TIMEOUT must be a positive number of seconds, got: 0",
        "\tHINT: Give the seconds as a number, for instance 25 or 2.5.",
        "GRACEFUL_RELEASE must be a string of at most 200 characters, got: 7",
        "\tHINT: For instance a version or a tag.",
    ]


@pytest.mark.parametrize("value", [None, "a.b", {"call": "a.b"}, {"a.b"}, 7])
@pytest.mark.parametrize(
    "key", ["GRACEFUL_EXIT_HOOKS", "GRACEFUL_HORSE_EXIT_HOOKS", "GRACEFUL_BUSY_HOOKS", "GRACEFUL_IDLE_HOOKS"]
)
def test_hooks_are_a_list(key: str, value: object) -> None:
    """A list of hooks is a list or tuple."""
    number, message = only_problem(**{key: value})
    assert number == "E009"
    assert message.startswith(f"{key} must be a list of hooks, got: ")


@pytest.mark.parametrize("value", [7, None, "", "nodots", "a..b", "a.b c", ".a", "a.", ["a.b"], {}, {"call": 7}])
def test_hook_of_no_known_form(value: object) -> None:
    """A hook of an unknown form is refused."""
    number, message = only_problem(GRACEFUL_EXIT_HOOKS=["x.y", value])
    assert number == "E010"
    assert message.startswith("GRACEFUL_EXIT_HOOKS[1] must be a dotted path, a callable, or a dict with the key call")


def test_unknown_key_of_a_hook() -> None:
    """An unknown key of a hook is refused, with the similar key as a hint."""
    with override_settings(GRACEFUL_EXIT_HOOKS=[{"call": "a.b", "time_out": 3}]):
        (problem,) = problems()
    assert (problem.id, problem.hint) == ("E011", "Did you mean 'timeout'?")
    assert problem.message == "GRACEFUL_EXIT_HOOKS[0] has an unknown key, got: 'time_out'"


@pytest.mark.parametrize("key", ["zzz", 7, None])
def test_unknown_key_of_a_hook_like_none_of_ours(key: object) -> None:
    """An unknown key without a similar one, or not a string, is refused with the list of keys."""
    with override_settings(GRACEFUL_EXIT_HOOKS=[{"call": "a.b", key: 3}]):
        (problem,) = problems()
    assert problem.hint == "Known are: call, name, timeout, optional, when."


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("name", 7),
        ("name", ""),
        ("name", "x" * 201),
        ("timeout", 0),
        ("timeout", True),
        ("timeout", math.inf),
        ("timeout", "3"),
        ("optional", 1),
        ("optional", "yes"),
        ("when", "nodots"),
        ("when", True),
    ],
)
def test_wrong_value_in_a_hook(part: str, value: object) -> None:
    """An invalid value in a hook is refused."""
    number, message = only_problem(GRACEFUL_EXIT_HOOKS=[{"call": "a.b", part: value}])
    assert number == "E012"
    assert message.startswith(f"GRACEFUL_EXIT_HOOKS[0][{part!r}] must be ")


@pytest.mark.parametrize(
    "entries",
    [["a.b", "a.b"], ["a.b", {"call": "c.d", "name": "a.b"}], [lambda: None, lambda: None], [Pool(), Pool()]],
)
def test_two_hooks_of_one_name(entries: list[object]) -> None:
    """Two hooks of one name in a list are refused."""
    number, message = only_problem(GRACEFUL_EXIT_HOOKS=entries)
    assert number == "E013"
    assert message.startswith("GRACEFUL_EXIT_HOOKS[1] must have a name of its own, got: ")


def test_the_same_name_in_both_lists_is_fine() -> None:
    """The same name may be in both lists."""
    assert found(GRACEFUL_EXIT_HOOKS=["a.b"], GRACEFUL_HORSE_EXIT_HOOKS=["a.b"]) == []


def test_busy_and_idle_hooks() -> None:
    """Busy and idle hooks are read like exit hooks; one function may be in both lists."""
    with override_settings(GRACEFUL_BUSY_HOOKS=["a.b"], GRACEFUL_IDLE_HOOKS=["a.b", some_hook], GRACEFUL_IDLE_AFTER=60):
        read = settings()
    assert read.busy_hooks == (HookSpec("a.b", "a.b"),)
    assert [spec.name for spec in read.idle_hooks] == ["a.b", f"{__name__}.some_hook"]
    assert read.idle_after == 60.0


def test_hook_with_more_time_than_all_have_is_a_warning() -> None:
    """A hook timeout above that of all hooks is a warning."""
    number, message = only_problem(GRACEFUL_EXIT_HOOKS=[{"call": "a.b", "timeout": 6}])
    assert number == "W002"
    assert message == "GRACEFUL_EXIT_HOOKS: the timeout of a.b should be at most GRACEFUL_HOOKS_TIMEOUT (5), got: 6"


def test_every_form_of_a_hook() -> None:
    """Every documented form of a hook is accepted."""
    pool = Pool()
    parted = partial(some_hook)
    entries = [
        "a.b",
        some_hook,
        pool.close,
        pool,
        {"call": parted, "name": "parted", "timeout": 2, "optional": True, "when": "c.d"},
        {"call": "e.f", "name": None, "timeout": None, "when": None},
    ]
    with override_settings(GRACEFUL_EXIT_HOOKS=entries):
        assert settings().exit_hooks == (
            HookSpec("a.b", "a.b"),
            HookSpec(some_hook, f"{__name__}.some_hook"),
            HookSpec(pool.close, f"{__name__}.Pool.close"),
            HookSpec(pool, f"{__name__}.Pool"),
            HookSpec(parted, "parted", timeout=2.0, optional=True, when="c.d"),
            HookSpec("e.f", "e.f"),
        )


def test_name_of_a_partial_is_that_of_its_function() -> None:
    """A partial is named after its function."""
    with override_settings(GRACEFUL_EXIT_HOOKS=[partial(partial(some_hook))]):
        assert settings().exit_hooks[0].name == f"{__name__}.some_hook"


def test_long_values_are_cut_in_messages() -> None:
    """Long values are cut in messages."""
    assert len(only_problem(GRACEFUL_RELEASE=["x" * 10_000])[1]) < 400


def test_with_timeout() -> None:
    """``--timeout`` is validated against the other settings."""
    read = settings()
    assert read.with_timeout(10).timeout == 10.0
    assert read.with_timeout(10).hooks_timeout == read.hooks_timeout
    assert read.with_timeout(6).timeout == 6.0
    with pytest.raises(InvalidSettings, match=r"GRACEFUL_HOOKS_TIMEOUT must be below --timeout \(5\), got: 5"):
        read.with_timeout(5)
    with pytest.raises(InvalidSettings, match="--timeout must be a positive number of seconds, got: nan"):
        read.with_timeout(math.nan)


@pytest.mark.parametrize("value", ["", "short", "with a space, and long", "l\u00e4nger-als-sechzehn", 12, b"x" * 20])
def test_token_that_is_none(value: object) -> None:
    """A token is a string that fits into a header and is hard to guess; a wrong one is not shown."""
    number, message = only_problem(GRACEFUL_JSON_TOKEN=value)[:2]
    assert number == "E019"
    assert not value or str(value) not in message


def test_the_token_is_not_shown() -> None:
    """The settings do not show the token, for instance in a traceback."""
    with override_settings(GRACEFUL_JSON_TOKEN="a-token-that-is-long-enough"):
        assert settings().json_token == "a-token-that-is-long-enough"
        assert "a-token" not in repr(settings())


@pytest.mark.parametrize(("key", "number"), [("GRACEFUL_MAX_MEMORY", "E022"), ("GRACEFUL_JOB_MEMORY", "E024")])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "512", 1_000_000, []])
def test_megabytes_that_are_none(key: str, number: str, value: object) -> None:
    """A limit of memory is a whole number of MB, or None."""
    rule = f"{key} must be a whole number of MB from 1 to 999999, or None, got: "
    found_number, message = only_problem(**{key: value})
    assert (found_number, message[: len(rule)]) == (number, rule)


@pytest.mark.parametrize("value", [0, -1, True, "60", math.inf, 604801])
def test_ages_that_are_none(value: object) -> None:
    """A maximum age is a positive number of seconds, or None."""
    assert only_problem(GRACEFUL_MAX_AGE=value)[0] == "E023"


def test_options_win_over_the_limits_of_the_settings() -> None:
    """``--max-memory`` and ``--max-age`` take the place of the settings, each by itself."""
    with override_settings(GRACEFUL_MAX_MEMORY=512, GRACEFUL_MAX_AGE=3600):
        read = settings().with_recycling(100, None)
        assert (read.max_memory, read.max_age) == (100, 3600.0)
        read = settings().with_recycling(None, 60)
        assert (read.max_memory, read.max_age) == (512, 60)
