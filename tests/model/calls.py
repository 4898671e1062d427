"""Tells a mutant that does something else from one that does not, by every call of its script that worlds come to.

A mutant that answers as its script does and leaves the same keys, in each call that is made in a world, changes nothing
in that world: the world need not be explored with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import redis

from tests.model import engine
from tests.model.engine import Call, Runtime
from tests.model.explorer import Explorer, Plan


@dataclass(slots=True)
class Recorded:
    """A call, and what came of it.

    Args:
        call: the call.
        came: the script's answer, and what it left.
        worlds: where it is made.
    """

    call: Call
    came: tuple[str, bytes]
    worlds: set[str] = field(default_factory=set)


def collect(runtime: Runtime, plans: Sequence[Plan], *, walks: int, seconds: float) -> dict[str, list[Recorded]]:
    """The calls of each script in these worlds, each with other arguments or from another state of what it reads.

    Args:
        runtime: where.
        plans: the worlds.
        walks: random ways through each.
        seconds: how long each is explored besides.
    """
    found: dict[bytes, Recorded] = {}
    for plan in plans:
        runtime.calls = []
        try:
            for seed in range(walks):
                Explorer(runtime, plan).walk(seed)
            Explorer(runtime, plan).explore(seconds=seconds)
            for call in runtime.calls:
                found.setdefault(_digest(call), Recorded(call, ("", b""))).worlds.add(plan.name)
        finally:
            runtime.calls = None
    by_script: dict[str, list[Recorded]] = {}
    for recorded in found.values():
        recorded.came = _outcome(runtime, recorded.call.text, recorded.call)
        by_script.setdefault(engine.script_name(recorded.call.text), []).append(recorded)
    return by_script


def _digest(call: Call) -> bytes:
    """Calls of one digest are one to the script: its keys, and the jobs and queues that it finds by them."""
    named = {str(key) for key in call.keys}
    read = sorted(
        (name, key.kind, repr(key.content), key.ttl)
        for name, key in call.state.view.items()
        if name in named or name.startswith(("rq:job:", "rq:queue:"))
    )
    return hashlib.blake2b(repr((call.text, call.keys, call.args, call.clock, read)).encode()).digest()


def _outcome(runtime: Runtime, text: str, call: Call) -> tuple[str, bytes]:
    runtime.server.put(call.state, call.clock)
    try:
        reply = repr(runtime.script(text)(keys=call.keys, args=call.args))
    except redis.exceptions.ResponseError as error:
        reply = type(error).__name__
    return reply, runtime.server.take().digest


def worlds_that_differ(runtime: Runtime, text: str, recorded: Iterable[Recorded]) -> dict[str, int]:
    """In which worlds a mutant does something else than its script, and in how many calls."""
    found: dict[str, int] = {}
    for each in recorded:
        if _outcome(runtime, text, each.call) != each.came:
            for world in each.worlds:
                found[world] = found.get(world, 0) + 1
    return found
