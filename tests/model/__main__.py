"""``make prove``: all worlds, to their last state or as far as the time goes, random walks, and all mutants."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.model import calls, cuts, mutants, replay, worlds  # noqa: E402
from tests.model.classified import CLASSIFIED  # noqa: E402
from tests.model.engine import Runtime  # noqa: E402
from tests.model.explorer import Explorer, Plan, Result, laboratory  # noqa: E402
from tests.support.server import Server  # noqa: E402

RECORD_SECONDS = 2.0
"""How long each world is explored for the calls that tell where a mutant does something else."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    explore = commands.add_parser("explore", help="worlds, random walks, mutants (the default)")
    for each in (parser, explore):
        each.add_argument("--minutes", type=float, default=30.0, help="for everything (default: %(default)s)")
        each.add_argument("--seed", type=int, help="of the random walks")
        each.add_argument("--world", action="append", help="only this world; may be repeated")
        each.add_argument("--no-mutants", action="store_true")
    replayed = commands.add_parser("replay", help="look at dumps of the chaos suite")
    replayed.add_argument("file", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    if options.command == "replay":
        return max(replay.report(path) for path in options.file)
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    deadline = time.monotonic() + 60 * options.minutes
    failed = False
    with Server(unix_socket=True) as server, laboratory(server.client()) as runtime:
        chosen = [plan for plan in (*worlds.SMALL, *worlds.LARGE) if not options.world or plan.name in options.world]
        share = 0.5 * 60 * options.minutes / max(1, len(chosen))
        print(f"{'world':26} {'states':>8} {'steps':>8} {'depth':>5} {'ends':>5} {'s':>6}  result")
        for plan in chosen:
            result = Explorer(runtime, plan).explore(seconds=share)
            failed |= _told(plan, result)
        walks = 0
        print(f"\nrandom walks, seed {seed}: ", end="", flush=True)
        until = time.monotonic() + (deadline - time.monotonic()) * (1.0 if options.no_mutants else 0.3)
        steps = 0
        while time.monotonic() < until:
            plan = worlds.walked(chosen[walks % len(chosen)])
            result = Explorer(runtime, plan).walk(seed + walks)
            steps += result.transitions
            walks += 1
            if result.broken:
                failed |= _told(plan, result)
                break
        print(f"{walks} walks, {steps} steps")
        for cut in cuts.all_or_nothing(runtime, cuts.calls(runtime, worlds.CUT)):
            failed = True
            print(f"all_or_nothing: {cut.script} failed half-way, {cut.hostile}: {cut.error}; changed {cut.changed}")
        if not options.no_mutants:
            failed |= _mutants(runtime, deadline)
    return int(failed)


def _told(plan: Plan, result: Result) -> bool:
    within = "" if plan.switches is None else f" within {plan.switches} changes of the actor at work"
    closed = f"closed{within}" if result.closed else f"bounded: {result.states} states{within}"
    print(
        f"{plan.name:26} {result.states:8} {result.transitions:8} {result.depth:5} {result.ends:5} "
        f"{result.seconds:6.1f}  {f'BROKEN: {result.broken}: {result.detail}' if result.broken else closed}",
        flush=True,
    )
    if result.broken:
        print("\n".join(f"    {line}" for line in result.trace))
    return bool(result.broken)


def _mutants(runtime: Runtime, deadline: float) -> bool:
    """Try all mutants; whether one lives on without a reason, or was not tried for want of time."""
    recorded = calls.collect(runtime, worlds.SMALL, walks=3, seconds=RECORD_SECONDS)
    print(f"\n{'script':20} {'calls':>6} {'mutants':>7} {'killed':>7} {'classified':>10} {'alive':>6} {'not tried':>9}")
    alive: list[str] = []
    killers: Counter[str] = Counter()
    untried = 0
    for script in mutants.PROTOCOL:
        made = list(mutants.mutants(script))
        killed = classified = tried = 0
        for mutant in made:
            if time.monotonic() > deadline:
                break
            tried += 1
            if mutant.key in CLASSIFIED:
                classified += 1
                continue
            verdict = mutants.sieve(runtime, mutant, recorded[script])
            if verdict.killed_by:
                killed += 1
                killers[verdict.killed_by] += 1
            else:
                alive.append(mutant.name)
        here = tried - killed - classified
        untried += len(made) - tried
        print(
            f"{script:20} {len(recorded[script]):6} {len(made):7} {killed:7} {classified:10} {here:6} "
            f"{len(made) - tried:9}",
            flush=True,
        )
    print("killed by: " + ", ".join(f"{name} {count}" for name, count in killers.most_common()))
    for name in alive:
        print(f"alive, not classified: {name}")
    return bool(alive or untried)


if __name__ == "__main__":
    sys.exit(main())
