"""``python -m tests.chaos``: rounds of real workers, each with one fault at a random instant.

The seed is printed. ``--seed S --only N`` plays round N of it again, with the logs of its workers. A long run can be
split by ``--first``, and goes on where it was ended if it keeps its outcomes in a file (``--record``).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.chaos.faults import FAULTS, names_for  # noqa: E402
from tests.chaos.lanes import run  # noqa: E402
from tests.chaos.plan import ACTORS, plan  # noqa: E402
from tests.chaos.rounds import NOISE_SECONDS, TOLERATED_SECONDS, Outcome  # noqa: E402
from tests.chaos.services import LANES  # noqa: E402

COUNTED = ("jobs", "lost", "doubled", "failed", "counts", "reports", "codes", "left")


@dataclass
class Row:
    """One line of a table: the rounds of one fault, or beside one actor."""

    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    meant: Counter[str] = field(default_factory=Counter)
    overrun: float | None = None
    late: int = 0
    seconds: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        self.rounds += 1
        self.counts.update({name: record[name] for name in COUNTED})
        self.meant.update(record["meant"])
        self.seconds += record["seconds"]
        overrun = record["overrun"]
        if overrun is not None:
            self.overrun = overrun if self.overrun is None else max(self.overrun, overrun)
            self.late += overrun > NOISE_SECONDS


def record_of(outcome: Outcome) -> dict[str, Any]:
    """What is kept of an outcome: numbers, and what was wrong in words."""
    return {
        "seed": outcome.round.seed,
        "number": outcome.round.number,
        "fault": outcome.round.fault,
        "actor": outcome.actor,
        "jobs": outcome.jobs,
        "lost": len(outcome.lost),
        "doubled": len(outcome.doubled),
        "failed": len(outcome.failed),
        "counts": len(outcome.counts),
        "reports": len(outcome.reports_missing),
        "codes": len(outcome.codes),
        "left": len(outcome.left_over),
        "meant": dict(outcome.meant),
        "overrun": outcome.overrun,
        "seconds": outcome.seconds,
        "wrong": outcome.wrong,
    }


def main() -> int:
    """Returns the exit code: 1 if anything is missing."""
    arguments = _arguments()
    names = [arguments.fault] if arguments.fault else names_for(arguments.service)
    if arguments.stock:
        names = [name for name in names if FAULTS[name].stock]
    first = arguments.first if arguments.only is None else arguments.only
    numbers = range(first, first + (arguments.rounds if arguments.only is None else 1))
    records = [
        record
        for record in _recorded(arguments.record)
        if record["seed"] == arguments.seed and record["number"] in numbers and record["fault"] in names
    ]
    done = {record["number"] for record in records}
    rounds = [plan(arguments.seed, number, names, FAULTS) for number in numbers if number not in done]
    kind = "rqworker" if arguments.stock else "runworker_graceful"
    print(f"{len(rounds)} rounds of {kind}, seed {arguments.seed}, {arguments.lanes} side by side", flush=True)
    began = time.monotonic()
    played = 0

    def each(outcome: Outcome) -> None:
        nonlocal played
        played += 1
        record = record_of(outcome)
        records.append(record)
        if arguments.record:
            with arguments.record.open("a") as file:
                file.write(json.dumps(record) + "\n")
        if arguments.verbose or arguments.only is not None:
            print(f"{outcome.round} [{outcome.seconds:.2f} s]", flush=True)
        late = outcome.overrun is not None and outcome.overrun > NOISE_SECONDS
        if outcome.wrong or (late and not arguments.stock):
            _print_wrong(outcome, logs=arguments.logs or arguments.only is not None)
        elif arguments.only is not None:
            print(outcome.logs)
        if played % 50 == 0:
            wrong = sum(bool(record["wrong"]) for record in records)
            print(f"{played} rounds, {time.monotonic() - began:.0f} s, {wrong} wrong", flush=True)

    run(rounds, arguments.lanes, each, stock=arguments.stock, service=arguments.service)
    for line in (*table("fault", names, records), "", *table("beside it", ACTORS, records, key="actor")):
        print(line)
    print(f"{len(rounds)} rounds in {time.monotonic() - began:.0f} s; again: --seed {arguments.seed}")
    bad = [record for record in records if record["wrong"] or (record["overrun"] or 0.0) > TOLERATED_SECONDS]
    return 1 if bad and not arguments.stock else 0


def table(title: str, names: Iterable[str], records: list[dict[str, Any]], key: str = "fault") -> Iterator[str]:
    """A table with a line for each fault or actor that was there, and a line of sums.

    Args:
        title: of its first column.
        names: of the lines, in their order.
        records: of the rounds.
        key: what of a record names its line.
    """
    titles = ("rounds", *COUNTED[:-1], "left over", "late", "worst", "s/round", "failures that are meant")
    form = "{:<18} {:>6} {:>6} {:>5} {:>7} {:>6} {:>6} {:>7} {:>5} {:>9} {:>4} {:>8} {:>7}  {}"
    yield form.format(title, *titles).rstrip()
    rows: dict[str, Row] = {}
    total = Row()
    for record in records:
        rows.setdefault(record[key], Row()).add(record)
        total.add(record)
    for name, row in [*((name, rows[name]) for name in names if name in rows), ("all", total)]:
        worst = "-" if row.overrun is None else f"{row.overrun:+.2f} s"
        meant = ", ".join(f"{count} {failure}" for failure, count in sorted(row.meant.items()))
        yield form.format(
            name,
            row.rounds,
            *(row.counts[each] for each in COUNTED),
            row.late,
            worst,
            f"{row.seconds / max(1, row.rounds):.2f}",
            meant,
        ).rstrip()


def _recorded(path: Path | None) -> list[dict[str, Any]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _print_wrong(outcome: Outcome, *, logs: bool) -> None:
    print(f"WRONG {outcome.round}")
    for words in outcome.wrong:
        print(f"   {words}")
    if outcome.overrun is not None:
        print(f"   {outcome.overrun:+.2f} s past the grace period")
    if logs:
        print(outcome.logs)
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first round")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--fault", choices=list(FAULTS), help="only this one")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="only the round of this number, with its logs")
    parser.add_argument("--service", choices=list(LANES), default="plain", help="what the workers are connected to")
    parser.add_argument("--server", metavar="PATH", help="the Redis or Valkey server, in place of REDIS_SERVER")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep outcomes there; rounds in it are not played")
    parser.add_argument("--stock", action="store_true", help="django-rq's own worker instead of ours")
    parser.add_argument("--lanes", type=int, default=3, help="how many rounds go on side by side")
    parser.add_argument("--logs", action="store_true", help="print the logs of rounds that went wrong")
    parser.add_argument("--verbose", action="store_true", help="print every round")
    arguments = parser.parse_args()
    if arguments.server:
        os.environ["REDIS_SERVER"] = arguments.server
    return arguments


if __name__ == "__main__":
    sys.exit(main())
