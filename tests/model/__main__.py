"""``make prove``: all worlds, to their last state or as far as the time goes, random walks, and all mutants."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.model import cuts, mutants, replay, worlds  # noqa: E402
from tests.model.explorer import Explorer, Plan, Result, laboratory  # noqa: E402
from tests.support.server import Server  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    explore = commands.add_parser("explore", help="worlds, random walks, mutants (the default)")
    for each in (parser, explore):
        each.add_argument("--minutes", type=float, default=30.0, help="for everything (default: %(default)s)")
        each.add_argument("--seed", type=int, help="of the random walks")
        each.add_argument("--world", action="append", help="only this world; may be repeated")
        each.add_argument("--no-mutants", action="store_true")
        each.add_argument("--strict", action="store_true", help="mutants that live on and are not classified fail too")
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
        for cut in cuts.all_or_nothing(runtime, worlds.CUT):
            failed = True
            print(f"all_or_nothing: {cut.script} failed half-way, {cut.hostile}: {cut.error}; changed {cut.changed}")
        if not options.no_mutants:
            survivors = _mutants(runtime, deadline)
            failed |= survivors and options.strict
    return int(failed)


def _told(plan: Plan, result: Result) -> bool:
    closed = "closed" if result.closed else "time is up"
    print(
        f"{plan.name:26} {result.states:8} {result.transitions:8} {result.depth:5} {result.ends:5} "
        f"{result.seconds:6.1f}  {f'BROKEN: {result.broken}: {result.detail}' if result.broken else closed}",
        flush=True,
    )
    if result.broken:
        print("\n".join(f"    {line}" for line in result.trace))
    return bool(result.broken)


def _mutants(runtime: object, deadline: float) -> bool:
    print(f"\n{'script':12} {'mutants':>7} {'killed':>7} {'equivalent':>10} {'alive':>6} {'not tried':>9}")
    alive: list[str] = []
    for script in mutants.PROTOCOL:
        made = list(mutants.mutants(script))
        killed = equivalent = tried = 0
        for mutant in made:
            if time.monotonic() > deadline:
                break
            tried += 1
            if mutants.EQUIVALENT.get(mutant.key):
                equivalent += 1
                continue
            verdict = mutants.try_out(runtime, mutant, worlds.SIEVE, most=1500, cuts=worlds.CUT)  # type: ignore[arg-type]
            if verdict.killed_by:
                killed += 1
            else:
                alive.append(mutant.name)
        here = sum(name.startswith(f"{script}:") for name in alive)
        print(f"{script:12} {len(made):7} {killed:7} {equivalent:10} {here:6} {len(made) - tried:9}", flush=True)
    for name in alive:
        print(f"alive, not classified: {name}")
    return bool(alive)


if __name__ == "__main__":
    sys.exit(main())
