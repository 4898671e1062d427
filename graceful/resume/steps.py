"""Steps of a job: one that has finished is not executed again when the job runs again."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from graceful.jobs import interruption
from graceful.resume.cursors import STEP, as_json
from graceful.resume.transactions import must_not_be_open

P = ParamSpec("P")
T = TypeVar("T")


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function a step of the job that calls it: ``invoice = step("invoice")(create_invoice)(order.id)``.

    Its result is saved with the job as soon as it returns: one Redis command. When the job runs again (it was
    interrupted, its worker was killed, RQ retries it), a finished step is skipped, and the saved result returned. A
    step that was cut off is executed again: it should do one thing, or be idempotent. Before a step the job is
    interrupted if a shutdown was requested.

    Within an item of a ``resumable`` loop a step belongs to that item. What is saved is removed when the job succeeds.
    Outside a worker the function is only called.

    Args:
        name: distinguishes the steps and loops of one job. Where a step is in a loop of your own, put the item in:
            ``step(f"charge {order.id}")``.

    Raises:
        TypeError, ValueError: at the call: JSON cannot represent the result, or two steps or loops of this job have the
            same name. Tuples come back as lists and keys as strings, in the first run too.
        RuntimeError: at the call: a transaction of a database is open.
        CursorMismatch: at the call: what is saved under this name is a loop.
        JobInterrupted: at the call: a shutdown was requested; let it propagate.
    """
    if not isinstance(name, str):
        raise TypeError(f'a step has a name: @step("name"), got: {name!r:.200}')

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            guard = interruption.guard
            if guard is None or guard.elsewhere:
                return function(*args, **kwargs)
            guard.check()
            must_not_be_open(f"step {name!r}")
            entry = guard.cursors.begin(name, STEP, "")
            result: Any = entry.saved
            finished = entry.finished
            try:
                if not finished:
                    returned = as_json(function(*args, **kwargs), f"step {name!r} returned what JSON cannot represent")
                    result = entry.position = json.loads(returned)
                    finished = True
            finally:
                guard.cursors.end(name, finished=finished)
            guard.save_cursors()  # Does nothing where it was skipped.
            return result  # type: ignore[no-any-return]

        return run

    return decorate
