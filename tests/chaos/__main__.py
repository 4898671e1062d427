"""``python -m tests.chaos``: rounds of real workers, each with one fault at a random instant.

The seed is printed. ``--seed S --only N`` plays round N of it again, with the logs of its workers.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.chaos.faults import FAULTS  # noqa: E402
from tests.chaos.lanes import run  # noqa: E402
from tests.chaos.plan import plan  # noqa: E402
from tests.chaos.rounds import NOISE_SECONDS, TOLERATED_SECONDS, Outcome  # noqa: E402


@dataclass
class Row:
    """One fault's line in the table."""

    rounds: int = 0
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    reports: int = 0
    left: int = 0
    overrun: float | None = None
    late: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.rounds += 1
        self.jobs += outcome.jobs
        self.lost += len(outcome.lost)
        self.doubled += len(outcome.doubled)
        self.failed += len(outcome.failed)
        self.reports += len(outcome.reports_missing)
        self.left += len(outcome.left_over)
        self.seconds.append(outcome.seconds)
        if outcome.overrun is not None:
            self.overrun = outcome.overrun if self.overrun is None else max(self.overrun, outcome.overrun)
            self.late += outcome.overrun > NOISE_SECONDS


def main() -> int:
    """Returns the exit code: 1 if anything is missing."""
    arguments = _arguments()
    names = [arguments.fault] if arguments.fault else list(FAULTS)
    if arguments.stock:
        names = [name for name in names if FAULTS[name].stock]
    numbers = [arguments.only] if arguments.only is not None else range(arguments.rounds)
    rounds = [plan(arguments.seed, number, names, FAULTS) for number in numbers]
    kind = "rqworker" if arguments.stock else "runworker_graceful"
    print(f"{len(rounds)} rounds of {kind}, seed {arguments.seed}, {arguments.lanes} side by side", flush=True)
    rows: dict[str, Row] = {}
    failures: list[Outcome] = []
    began = time.monotonic()

    def each(outcome: Outcome) -> None:
        rows.setdefault(outcome.round.fault, Row()).add(outcome)
        if arguments.verbose or arguments.only is not None:
            print(f"{outcome.round} [{outcome.seconds:.2f} s]", flush=True)
        late = outcome.overrun is not None and outcome.overrun > NOISE_SECONDS
        if outcome.wrong or (late and not arguments.stock):
            failures.append(outcome)
            _print_wrong(outcome, logs=arguments.logs or arguments.only is not None)
        elif arguments.only is not None:
            print(outcome.logs)
        done = sum(row.rounds for row in rows.values())
        if done % 50 == 0:
            print(f"{done} rounds, {time.monotonic() - began:.0f} s, {len(failures)} to look at", flush=True)

    run(rounds, arguments.lanes, each, stock=arguments.stock)
    for line in table({name: rows[name] for name in names if name in rows}):
        print(line)
    print(f"{len(rounds)} rounds in {time.monotonic() - began:.0f} s; again: --seed {arguments.seed}")
    bad = [each for each in failures if each.wrong or (each.overrun or 0.0) > TOLERATED_SECONDS]
    return 1 if bad and not arguments.stock else 0


def table(rows: dict[str, Row]) -> Iterator[str]:
    """The table by fault, with a line of sums."""
    titles = (
        "fault",
        "rounds",
        "jobs",
        "lost",
        "doubled",
        "failed",
        "reports",
        "left over",
        "late",
        "worst",
        "s/round",
    )
    form = "{:<16} {:>6} {:>6} {:>5} {:>7} {:>6} {:>7} {:>9} {:>4} {:>8} {:>7}"
    yield form.format(*titles)
    total = Row()
    for name, row in [*rows.items(), ("all", total)]:
        worst = "-" if row.overrun is None else f"{row.overrun:+.2f} s"
        yield form.format(
            name, row.rounds, row.jobs, row.lost, row.doubled, row.failed, row.reports, row.left, row.late, worst,
            f"{sum(row.seconds) / max(1, len(row.seconds)):.2f}",
        )  # fmt: skip
        if row is not total:
            for column in ("rounds", "jobs", "lost", "doubled", "failed", "reports", "left", "late"):
                setattr(total, column, getattr(total, column) + getattr(row, column))
            total.seconds += row.seconds
            overruns = [each for each in (total.overrun, row.overrun) if each is not None]
            total.overrun = max(overruns) if overruns else None


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
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--fault", choices=list(FAULTS), help="only this one")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="only the round of this number, with its logs")
    parser.add_argument("--stock", action="store_true", help="django-rq's own worker instead of ours")
    parser.add_argument("--lanes", type=int, default=3, help="how many rounds go on side by side")
    parser.add_argument("--logs", action="store_true", help="print the logs of rounds that went wrong")
    parser.add_argument("--verbose", action="store_true", help="print every round")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
