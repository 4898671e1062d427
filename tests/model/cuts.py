"""A script that fails half-way has done half of its work: Redis takes nothing back.

So a script that fails must have changed nothing. Each call of each script in a few small worlds is done again with
something hostile in the place of each thing that it may read: a key of another type, a field that is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import redis

from tests.model import code_under_test, engine
from tests.model.engine import Call, Runtime
from tests.model.explorer import Explorer, Plan

NO_NUMBERS = ("x", "9223372036854775807", "1e999", "")
NUMBERS = (code_under_test.INTERRUPTIONS_FIELD, f"{code_under_test.INTERRUPTIONS_FIELD}_before_progress")


@dataclass(frozen=True, slots=True)
class Cut:
    """A script that failed after it had written.

    Args:
        script: its short name.
        hostile: what was in its way.
        error: how it failed.
        changed: keys that it had changed by then.
    """

    script: str
    hostile: str
    error: str
    changed: tuple[str, ...]


def calls(runtime: Runtime, plans: tuple[Plan, ...], each: int = 3) -> list[Call]:
    """Calls of scripts in these worlds, at most so many of each script, all of different states."""
    runtime.calls = []
    try:
        for plan in plans:
            Explorer(runtime, plan).explore(most=100)
        found = runtime.calls
    finally:
        runtime.calls = None
    kept: dict[str, dict[bytes, Call]] = {}
    for call in found:
        of_script = kept.setdefault(call.text, {})
        if len(of_script) < each:
            of_script.setdefault(call.digest, call)
    return [call for of_script in kept.values() for call in of_script.values()]


def all_or_nothing(runtime: Runtime, made: Iterable[Call]) -> Iterator[Cut]:
    """A script that fails has changed nothing; yields those that have.

    Args:
        runtime: where.
        made: calls that are made again, see :func:`calls`.
    """
    client = runtime.server.client
    for call in made:
        for what, spoil in _hostile(client, [str(key) for key in call.keys]):
            runtime.server.put(call.state, call.clock)
            if not spoil():
                continue
            before = runtime.server.take()
            try:
                runtime.script(call.text)(keys=call.keys, args=call.args)
            except redis.exceptions.ResponseError as error:
                after = runtime.server.take()
                names = {*before.view, *after.view}
                changed = tuple(sorted(name for name in names if before.view.get(name) != after.view.get(name)))
                if changed:
                    yield Cut(engine.script_name(call.text), what, str(error)[:100], changed)


def _hostile(client: redis.Redis, keys: list[str]) -> Iterator[tuple[str, Callable[[], bool]]]:
    for key in keys:
        for kind in (b"string", b"list"):

            def another_type(key: str = key, kind: bytes = kind) -> bool:
                if client.type(key) == kind:
                    return False
                client.delete(key)
                client.rpush(key, "x") if kind == b"list" else client.set(key, "x")
                return True

            yield f"{key} is a {kind.decode()}", another_type
        for field in NUMBERS:
            for value in NO_NUMBERS:

                def no_number(key: str = key, field: str = field, value: str = value) -> bool:
                    if not key.startswith("rq:job:") or client.type(key) != b"hash":
                        return False
                    client.hset(key, field, value)
                    return True

                yield f"{field} of {key} is {value!r}", no_number
