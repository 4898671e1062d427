"""Tasks of the tests. Imported once ``TASKS`` names their backend (the fixture ``tasks``)."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from django.dispatch import receiver
from django_rq import get_connection

from graceful import on_interrupt, resumable
from graceful.tasks.library import LIBRARY, task_finished, task_started

HEARD = "tests:task-signals"
BEGUN = "tests:tasks-begun"

task: Any = import_module(LIBRARY).task


@receiver(task_started)
def hear_start(task_result: Any, **_: Any) -> None:
    get_connection().rpush(HEARD, f"started {task_result.status} {task_result.attempts}")


@receiver(task_finished)
def hear_end(task_result: Any, **_: Any) -> None:
    get_connection().rpush(HEARD, f"finished {task_result.status} {task_result.attempts}")


@task
def add(one: int, two: int = 2) -> int:
    return one + two


@task
def pair() -> tuple[int, ...]:
    return (1, 2)


@task
async def add_later(one: int, two: int) -> int:
    return one + two


@task
def unrepresentable() -> object:
    return object()


@task(takes_context=True)
def told(context: Any, *values: int) -> list[Any]:
    result = context.task_result
    return [context.attempt, result.status, result.id, result.args, list(values)]


class Broken(Exception):
    """An error of a task's own."""


@task
def breaks() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise Broken("two\nlines: Traceback") from error


@task(queue_name="high", priority=7)
def urgent() -> str:
    return "done"


@task
def calls_another() -> int:
    return int(add(1))


@task(takes_context=True)
def slow(context: Any, items: int) -> list[Any]:
    """A loop of 50 ms an item."""
    done = 0
    for _ in resumable(range(items)):
        get_connection().rpush(BEGUN, context.task_result.id)
        time.sleep(0.05)
        done += 1
    return [context.attempt, done]


@task
def sleeps(seconds: float) -> None:
    get_connection().rpush(BEGUN, "sleeps")
    time.sleep(seconds)


@on_interrupt("fail")
@task
def once_above(seconds: float) -> None:
    get_connection().rpush(BEGUN, "once")
    time.sleep(seconds)


@task
@on_interrupt("fail")
def once_below(seconds: float) -> None:
    get_connection().rpush(BEGUN, "once")
    time.sleep(seconds)
