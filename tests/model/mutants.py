"""Is the checker any good? Each line of each Lua script is taken away or weakened; an invariant must break by it.

The mutants are made from the text of the scripts, so that a new line has its mutants by itself: a statement is
deleted, a value that is asked for is not there, a condition is always or never true. A mutant that no world finds is
printed: an invariant is missing, or the line is not needed, or the mutant is none (``classified.py`` says why).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.model import code_under_test, worlds
from tests.model.calls import Recorded, worlds_that_differ
from tests.model.cuts import all_or_nothing
from tests.model.engine import Call, Runtime
from tests.model.explorer import Explorer, Plan

PROTOCOL = ("fetch", "claim", "requeue", "heartbeat", "deregister", "deregister_from_rq")
"""The scripts that the model runs; those for cursors, schedulers and unreadable entries have tests of their own."""

SAMPLE = (
    ("fetch", "without redis.call('HSET', KEYS[2]"),
    ("claim", "false for KEYS[3]"),
    ("claim", "without redis.call('HSET'"),
    ("requeue", "without redis.call(ARGV[10]"),
    ("requeue", "without redis.pcall('LREM'"),
    ("deregister", "without redis.call('HDEL', KEYS[1]"),
    ("heartbeat", "without redis.call('ZADD'"),
)
"""Mutants that ``make test`` tries: script, and how the mutation begins."""

CUT_CALLS = 8
"""How many calls of a script are done again with something hostile in their way."""
WALK_FAULTS = 0.15
"""How often a fault is chosen in a random walk with a mutant."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One script with one line changed.

    Args:
        script: its short name.
        line: number of the line.
        what: the change in words.
        text: the script.
    """

    script: str
    line: int
    what: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.script}:{self.line} {self.what}"

    @property
    def key(self) -> tuple[str, str]:
        return self.script, self.what


def mutants(script: str) -> Iterator[Mutant]:
    """All mutants of a script."""
    text = code_under_test.SCRIPTS[script]
    lines = text.splitlines()

    def changed(number: int, what: str, line: str) -> Mutant:
        return Mutant(script, number + 1, what, "\n".join([*lines[:number], line, *lines[number + 1 :]]))

    for number, line in enumerate(lines):
        code = line.strip()
        if re.match(r"(redis\.p?call\(|table\.insert\()", code):
            yield changed(number, f"without {code}", "")
        elif found := re.match(r"(local )?([\w, ]+) = (.*(?:redis\.call|ask)\(.*)", code):
            yield changed(number, f"nothing for {code}", f"{found[1] or ''}{found[2]} = nil")
        elif found := re.match(r"(if|elseif) (.*) then$", code):
            for value in ("true", "false"):
                yield changed(number, f"{value} for {found[2]}", f"{found[1]} {value} then")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant.

    Args:
        mutant: which.
        killed_by: the invariant that broke; empty if none did.
        world: the world in which it broke.
        seconds: how long it took.
    """

    mutant: Mutant
    killed_by: str
    world: str
    seconds: float


def try_out(
    runtime: Runtime, mutant: Mutant, plans: Sequence[Plan], *, most: int, walks: int = 0, cuts: Sequence[Call] = ()
) -> Verdict:
    """Explore worlds with a mutant in the place of its script until an invariant breaks.

    Args:
        runtime: where.
        mutant: which.
        plans: the worlds, in this order.
        most: states of each world that are looked at.
        walks: random ways through each world that are gone before; they come to an end of it soon.
        cuts: calls of the script that are done again with something hostile in their way.
    """
    began = time.monotonic()

    def verdict(killed_by: str, world: str) -> Verdict:
        return Verdict(mutant, killed_by, world, time.monotonic() - began)

    runtime.rewrites = {code_under_test.SCRIPTS[mutant.script]: mutant.text}
    try:
        for seed in range(walks):
            for plan in plans:
                try:
                    result = Explorer(runtime, plan).walk(seed, fault=WALK_FAULTS)
                except StopIteration:
                    continue  # The mutant keeps this world from coming to its beginning: another has to find it.
                except Exception as error:  # A script that cannot even be run.
                    return verdict(type(error).__name__, plan.name)
                if result.broken:
                    return verdict(result.broken, plan.name)
        if cuts and any(all_or_nothing(runtime, cuts)):
            return verdict("all_or_nothing", "")
        for plan in plans if most else ():
            try:
                result = Explorer(runtime, plan).explore(most=most)
            except StopIteration:
                continue
            except Exception as error:
                return verdict(type(error).__name__, plan.name)
            if result.broken:
                return verdict(result.broken, plan.name)
    finally:
        runtime.rewrites = {}
    return verdict("", "")


def sieve(runtime: Runtime, mutant: Mutant, recorded: Sequence[Recorded]) -> Verdict:
    """Try a mutant in the worlds in which it differs from its script, those where it often does first."""
    differ = worlds_that_differ(runtime, mutant.text, recorded)
    plans = sorted((plan for plan in worlds.SMALL if plan.name in differ), key=lambda plan: -differ[plan.name])
    return try_out(runtime, mutant, plans, most=600, walks=6, cuts=[each.call for each in recorded[:CUT_CALLS]])
