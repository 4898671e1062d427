"""Run a fleet under constant deploys and faults, print its figures as a chart, and fail if something grew.

Exit code 1 if something did. The chart as a picture and the samples are in ``.soak``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from tests.chaos.lane import Lane
from tests.soak.chart import sparkline, svg
from tests.soak.fleet import Fleet
from tests.soak.growth import Tolerance, grows, growth, second_half
from tests.soak.sampler import of_database, of_fleet, of_redis, of_worker
from tests.support.waiting import let_pass

OUTPUT = Path(__file__).parents[2] / ".soak"
SAMPLE_SECONDS = 5.0
DEPLOY_SECONDS = 3.0
"""From one deploy to the next: what RQ keeps of a worker for a minute is as much as so many deploys leave."""
KILL_EVERY, RESTART_EVERY = 4, 10
"""Deploys. Redis is restarted in the first half only: who stays must have the second behind it in one piece."""
TOLERANCES = {
    "RSS": Tolerance(0.04, 1.5),
    "PSS": Tolerance(0.08, 3.0),
    "memory": Tolerance(0.10, 0.5),
    "descriptors": Tolerance(0.0, 2.0),
    "threads": Tolerance(0.0, 1.0),
    "processes": Tolerance(0.15, 2.0),
    "clients": Tolerance(0.15, 4.0),
    "rows": Tolerance(0.10, 2.0),
    "entries": Tolerance(0.15, 4.0),
    "keys": Tolerance(0.15, 8.0),
}
"""By a word of the figure's name."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long, without the draining (default: 30)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10_000), help="of all that is drawn"
    )
    options = parser.parse_args()
    if options.minutes < 3:
        parser.error("less than 3 minutes give too few samples")
    print(f"seed {options.seed}", flush=True)
    series, summary = run(options.minutes * 60, options.seed)
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "samples.json").write_text(json.dumps(series))
    growing = [name for name, values in series.items() if grows(values, tolerance_of(name))]
    (OUTPUT / "soak.svg").write_text(svg(series, growing))
    show(series, growing)
    print(summary)
    if growing:
        sys.exit(f"Grew in the second half: {', '.join(growing)}")


def run(seconds: float, seed: int) -> tuple[dict[str, list[float]], str]:
    """All series by the figure's name, and a sentence of what has happened."""
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    with Lane() as lane:
        fleet = Fleet(lane, random.Random(seed))
        sampled_at = 0.0
        while (passed := time.monotonic() - began) < seconds:
            first_half = passed < seconds / 2
            let_pass(max(0.0, fleet.release * DEPLOY_SECONDS - passed), "the next deploy is due")
            fleet.deploy()
            if fleet.release % KILL_EVERY == 0:
                fleet.kill_one()
            if first_half and fleet.release % RESTART_EVERY == 0:
                fleet.restart_redis()
            fleet.check(redis_was_away=first_half)
            if time.monotonic() - sampled_at >= SAMPLE_SECONDS:
                sampled_at = time.monotonic()
                samples.append(sample(lane, fleet))
        failed = fleet.drain(120)
        summary = (
            f"{fleet.release} deploys, {fleet.ended} workers replaced, {fleet.enqueued} jobs, "
            f"{len(failed)} failed ({'; '.join(failed)}), "
            + ", ".join(f"{name} {count}x" for name, count in fleet.faults.items())
        )
    return aligned(samples), summary


def sample(lane: Lane, fleet: Fleet) -> dict[str, float]:
    fleet.tidy()
    return {
        **of_worker("graceful", fleet.graceful),
        **of_worker("stock", fleet.stock),
        **of_fleet(fleet.workers),
        **of_redis(lane.connection),
        **of_database(lane, fleet.ended),
    }


def aligned(samples: list[dict[str, float]]) -> dict[str, list[float]]:
    """One list a figure, as long as there are samples: a key that was not there counts as none."""
    series: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(samples))
    for index, one in enumerate(samples):
        for name, value in one.items():
            series[name][index] = value
    return dict(series)


def tolerance_of(name: str) -> Tolerance:
    return next(tolerance for word, tolerance in TOLERANCES.items() if word in name)


def show(series: dict[str, list[float]], growing: list[str]) -> None:
    """One line a figure: first half's mean, second half's, its growth, what is tolerated, and its course."""
    print(f"{'figure':<44} {'1st half':>9} {'2nd half':>9} {'growth':>8} {'allowed':>8}")
    for name, values in series.items():
        half = statistics.fmean(second_half(values))
        first = statistics.fmean(values[: len(values) // 2])
        allowed = tolerance_of(name).of(half)
        mark = "GREW" if name in growing else ""
        print(
            f"{name:<44.44} {first:9.1f} {half:9.1f} {growth(values):+8.2f} {allowed:8.2f} {sparkline(values)} {mark}"
        )


if __name__ == "__main__":
    main()
