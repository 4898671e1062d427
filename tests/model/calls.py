"""Tells a mutant that does something else from one that does not, by every call of its script that worlds come to.

A mutant that answers as its script does and leaves the same keys, in each call that is made in a world, changes nothing
in that world: the world need not be explored with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from tests.model import engine
from tests.model.engine import Call, Runtime
from tests.model.explorer import Explorer, Plan

Calls = dict[str, list[tuple[str, Call]]]
"""By short name of the script: worlds and the calls that are made in them."""


def collect(runtime: Runtime, plans: Sequence[Plan], *, most: int, walks: int) -> Calls:
    """The calls of each script in these worlds, each from another state or with other arguments.

    Args:
        runtime: where.
        plans: the worlds.
        most: states of each that are looked at.
        walks: random ways through each besides.
    """
    found: dict[str, dict[bytes, tuple[str, Call]]] = {}
    for plan in plans:
        runtime.calls = []
        try:
            for seed in range(walks):
                Explorer(runtime, plan).walk(seed)
            if most:
                Explorer(runtime, plan).explore(most=most)
            for call in runtime.calls:
                key = call.digest + plan.name.encode()
                found.setdefault(engine.script_name(call.text), {}).setdefault(key, (plan.name, call))
        finally:
            runtime.calls = None
    return {script: list(calls.values()) for script, calls in found.items()}


def outcome(runtime: Runtime, text: str, call: Call) -> tuple[str, bytes]:
    """What a script answers to a call, and what it leaves."""
    runtime.server.put(call.state, call.clock)
    try:
        reply = repr(runtime.script(text)(keys=call.keys, args=call.args))
    except redis.exceptions.ResponseError as error:
        reply = type(error).__name__
    return reply, runtime.server.take().digest


def differing(runtime: Runtime, text: str, calls: Sequence[tuple[str, Call, tuple[str, bytes]]]) -> dict[str, int]:
    """In which worlds a mutant does something else than its script, and in how many calls.

    Args:
        runtime: where.
        text: the mutant.
        calls: worlds, calls of the script, and what came of each.
    """
    found: dict[str, int] = {}
    for world, call, came in calls:
        if outcome(runtime, text, call) != came:
            found[world] = found.get(world, 0) + 1
    return found
