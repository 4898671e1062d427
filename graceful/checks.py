"""System checks: everything that is wrong with the settings and the exit hooks, before a shutdown shows it.

====  =========================================================================
id    found
====  =========================================================================
E001  a ``GRACEFUL_*`` name that is no setting
E002  a time that is not a positive number of seconds
E003  ``GRACEFUL_HOOKS_TIMEOUT`` not below ``GRACEFUL_TIMEOUT``
E004  ``GRACEFUL_INTERRUPTED_JOBS`` neither "requeue" nor "fail"
E005  ``GRACEFUL_MAX_INTERRUPTIONS`` not a whole number from 0
E006  ``GRACEFUL_RELEASE`` not a short string
E007  ``GRACEFUL_REPORTS_KEEP`` neither days nor a timedelta
E008  ``GRACEFUL_SPOOL_DIR`` not an absolute path
E009  a list of hooks that is no list
E010  a hook that is neither path, callable nor dict
E011  an unknown key in a hook's dict
E012  a wrong value in a hook's dict
E013  two hooks of one name
E014  a hook, or its ``when``, that cannot be imported
E015  a hook, or its ``when``, that cannot be called
E016  a hook, or its ``when``, that needs more than one argument
E017  a hook, or its ``when``, that is a generator: calling it runs nothing
E018  ``django_rq`` not in ``INSTALLED_APPS``
E019  ``GRACEFUL_JSON_TOKEN`` not a string that is hard to guess
E022  ``GRACEFUL_MAX_MEMORY`` not a whole number of MB
E023  ``GRACEFUL_MAX_AGE`` not a positive number of seconds
E024  ``GRACEFUL_JOB_MEMORY`` not a whole number of MB
E025  ``GRACEFUL_PROBE_PORT`` neither a port nor None
E034  ``GRACEFUL_REPORT_CONNECTIONS`` not a whole number from 1
W001  hooks and interruption leave a running job no time
W002  a hook's timeout above that of all hooks
W003  migrations that are not applied (``check --database default``)
W004  advice from the stored reports (``check --database default``)
W005  a grace period too long for the platform (worker's start, ``check --deploy``)
W006  the same, unless the platform is told to wait longer than by default
====  =========================================================================
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections, router, transaction
from django.utils.translation import override

from graceful.conf import read
from graceful.core.records import HookSpec
from graceful.hook_entries import default_name
from graceful.hooks.calls import wants_shutdown
from graceful.hooks.registry import (
    NotCallable,
    load,
    names_missing_module,
    registered_exit_hooks,
    registered_horse_exit_hooks,
)


def register_checks() -> None:
    """Make Django run the checks; a second time does nothing."""
    register(check_apps)
    register(check_settings)
    register(check_hooks)
    register(check_migrations, Tags.database)
    register(check_reports, Tags.database)
    register(check_platform, deploy=True)


def check_apps(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Whether django-rq is installed as an app: its commands, pages and settings are what this app builds on."""
    if apps.is_installed("django_rq"):
        return []
    hint = 'Add "django_rq" to INSTALLED_APPS, before "graceful".'
    return [Error("INSTALLED_APPS must contain django_rq, got: no such app", hint=hint, id="graceful.E018")]


def check_settings(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """The ``GRACEFUL_*`` settings: unknown names, types, ranges, and whether they fit together."""
    return [
        (Error if problem.is_error else Warning)(problem.message, hint=problem.hint, id=f"graceful.{problem.id}")
        for problem in read()[1]
    ]


def check_hooks(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """The hooks: whether each can be imported, and called with none or one argument."""
    found = read()[0]
    lists = (
        ("GRACEFUL_EXIT_HOOKS", found.exit_hooks, "exit_hook", registered_exit_hooks()),
        ("GRACEFUL_HORSE_EXIT_HOOKS", found.horse_exit_hooks, "horse_exit_hook", registered_horse_exit_hooks()),
    )
    messages: list[CheckMessage] = []
    for key, from_settings, decorator, registered in lists:
        messages.extend(_same_names(key, from_settings, decorator, registered))
        for where, specs in ((key, from_settings), (decorator, registered)):
            for spec in specs:
                messages.extend(_check_hook(where, spec))
    for key, specs in (("GRACEFUL_BUSY_HOOKS", found.busy_hooks), ("GRACEFUL_IDLE_HOOKS", found.idle_hooks)):
        for spec in specs:
            messages.extend(_check_hook(key, spec))
    return messages


def check_migrations(
    app_configs: object = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Whether the tables are there and up to date; Django asks only where ``check --database`` names databases."""
    if sys.argv[1:2] == ["migrate"]:
        return []  # It asks before it makes them.
    from django.db.migrations.executor import MigrationExecutor  # No other command is to pay for its import.

    messages: list[CheckMessage] = []
    for alias in databases or ():
        if not router.allow_migrate(alias, "graceful"):
            continue
        executor = MigrationExecutor(connections[alias])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes("graceful"))
        missing = [migration.name for migration, _ in plan if migration.app_label == "graceful"]
        if missing:
            message = (
                f"The migrations of graceful must be applied to the database {alias}, missing: {', '.join(missing)}"
            )
            hint = "Run: manage.py migrate graceful. Until then shutdown reports stay in Redis or in the spool."
            messages.append(Warning(message, hint=hint, id="graceful.W003"))
    return messages


def check_reports(app_configs: object = None, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """What the stored reports recommend to change; asked only where ``check --database`` names their database."""
    if not databases or sys.argv[1:2] == ["migrate"]:
        return []  # Plain checks, as at the start of a worker, query nothing.
    from graceful.models import ShutdownReport  # Models are not there yet when this module is imported.
    from graceful.reports.advice import advice_for

    alias = router.db_for_read(ShutdownReport)
    if alias not in databases:
        return []
    try:
        with transaction.atomic(using=alias), override("en"):
            advice = advice_for(using=alias)
    except DatabaseError:
        return []  # Missing tables and an unreachable database are not for this check to tell.
    return [
        Warning(each.text, hint=f"{each.basis} manage.py shutdown_report --advice says the same.", id="graceful.W004")
        for each in advice
        if each.warning
    ]


def check_platform(
    app_configs: object = None, timeout: float | None = None, key: str = "GRACEFUL_TIMEOUT", **_: Any
) -> list[CheckMessage]:
    """Whether the platform waits longer than the worker may take: at a worker's start and with ``check --deploy``.

    Other commands, such as those of the web side, have no grace period. It makes no connection.

    Args:
        timeout: the worker's grace period in seconds, where it is not that of the settings.
        key: its source.
    """
    from graceful.reports.platforms import MARGIN_SECONDS, platform_grace  # Of no use to other commands.

    settings = read()[0]
    timeout = settings.timeout if timeout is None else timeout
    grace = platform_grace(os.environ, settings.platform_timeout)
    if grace is None or timeout <= grace.longest_timeout:
        return []
    needed = math.ceil(timeout + MARGIN_SECONDS)
    message = (
        f"{key} should be at most {grace.longest_timeout:g}, since {grace.name} sends SIGKILL after {grace.seconds:g} s"
    )
    if not grace.unless:
        hint = f"Lower it, or let the platform wait {needed} s if it can. docs/recipes has a page for each platform."
        return [Warning(f"{message}, got: {timeout:g}", hint=hint, id="graceful.W005")]
    hint = f"If {grace.name} waits longer, say so: GRACEFUL_PLATFORM_TIMEOUT = {needed}, or what {grace.unless} says."
    message = f"{message} unless {grace.unless} is set, got: {timeout:g}"
    return [Warning(message, hint=hint, id="graceful.W006")]


def _same_names(
    key: str, from_settings: Sequence[HookSpec], decorator: str, registered: Sequence[HookSpec]
) -> Iterator[CheckMessage]:
    for name in sorted({spec.name for spec in from_settings} & {spec.name for spec in registered}):
        message = f"{key} must not name a hook that is registered in code, got: {name!r}"
        hint = f"It would run twice: remove it from {key}, or the decorator @{decorator} from the function."
        yield Error(message, hint=hint, id="graceful.E013")


def _check_hook(where: str, spec: HookSpec) -> Iterator[CheckMessage]:
    targets = [(f"{where}: the hook {spec.name}", spec.call)]
    if spec.when is not None:
        targets.append((f"{where}: the condition (when) of the hook {spec.name}", spec.when))
    for subject, target in targets:
        try:
            call = load(target)
        except ModuleNotFoundError as error:
            if not spec.optional or not names_missing_module(spec, error):
                hint = 'Correct the path, install the module, or set "optional": True to skip the hook without it.'
                yield Error(f"{subject} must be importable, got: {error}", hint=hint, id="graceful.E014")
            return
        except NotCallable as error:
            hint = "The path must lead to a function, a method, a class or another callable."
            yield Error(f"{subject} must be callable, got: {error}", hint=hint, id="graceful.E015")
        except (Exception, SystemExit) as error:
            hint = "Importing its module must work; run the import in a shell to see the whole traceback."
            what = f"{type(error).__name__}: {error}"
            yield Error(f"{subject} must be importable, got: {what}", hint=hint, id="graceful.E014")
        else:
            yield from _check_call(subject, call)


def _check_call(subject: str, call: Callable[..., object]) -> Iterator[CheckMessage]:
    # An object's own code is in the __call__ of its class.
    code = call if inspect.isroutine(call) or isinstance(call, (type, functools.partial)) else type(call).__call__
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        message = f"{subject} must be a plain or async function, got a generator: {default_name(call)}"
        yield Error(message, hint="Calling a generator runs nothing of it: remove the yield.", id="graceful.E017")
        return
    try:
        wants_shutdown(call)
    except TypeError as error:
        hint = "Give further parameters defaults, or wrap it with functools.partial."
        yield Error(f"{subject} cannot be called: {error}", hint=hint, id="graceful.E016")
