"""``make bench``: side by side with django-rq's stock worker, in one run, as a table in Markdown."""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from tests.benchmarks.costs import commands, connections, handing_out
from tests.benchmarks.measures import (
    GRACEFUL,
    STOCK,
    Bench,
    Kind,
    backlogs,
    bench,
    busy_stops,
    earlier,
    idle_stops,
    losses,
    percentile,
    starts,
)

ONE = ("default",)
THREE = ("high", "default", "low")
IDLE_RATIO, BUSY_RATIO = 0.10, 0.12
RATE_RATIO = 1.0
START_RATIO = 1.03
MEMORY_RATIO = 1.03
CONNECTIONS = 3
HANDING_OUT = 15.0
"""Commands that it may take to hand one job out, however many workers are idle."""


@dataclass
class Table:
    """The rows, and whether every target was reached.

    Args:
        kinds: the columns: the stock worker, ours, and perhaps the version before.
    """

    kinds: tuple[Kind, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    reached: bool = True

    def add(self, what: str, values: Iterable[str], ratio: str = "", target: str = "", ok: bool = True) -> None:
        self.reached &= ok
        self.rows.append((what, *values, ratio, f"{target}{'' if ok else ' MISSED'}"))

    def compare(
        self,
        what: str,
        figures: dict[Kind, float],
        form: str,
        *,
        most: float | None = None,
        least: float | None = None,
        ratio: float | None = None,
    ) -> None:
        """A row of figures; the ratio is ours to the stock worker's, if none is given."""
        ratio = figures[GRACEFUL] / figures[STOCK] if ratio is None else ratio
        values = [form.format(figures[kind]) for kind in self.kinds]
        target = f"<= {most}" if most is not None else f">= {least}" if least is not None else ""
        ok = (most is None or round(ratio, 2) <= most) and (least is None or round(ratio, 2) >= least)
        self.add(what, values, f"{ratio:.2f}", target, ok)

    def print(self) -> None:
        rows = [("", *(kind.title for kind in self.kinds), "ratio", "target"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, tuple("-" * width for width in widths))
        for row in rows:
            print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |")


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def add_losses(table: Table, options: argparse.Namespace) -> None:
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"jobs lost in {options.signals} SIGTERMs, {words}")
        # Nothing is timed here, so all kinds run at once, at the same chosen instants.
        with ThreadPoolExecutor(len(table.kinds)) as pool:
            pending = {
                kind: pool.submit(losses, kind, queues, options.signals, random.Random(options.seed))
                for kind in table.kinds
            }
            found = {kind: each.result() for kind, each in pending.items()}
        ours = found[GRACEFUL]
        table.add(
            f"jobs lost in {options.signals} SIGTERMs, {words}",
            (f"{each.gone} gone, {each.stuck} stuck, of {each.jobs}" for each in found.values()),
            target="0",
            ok=not ours.lost and not ours.twice,
        )
        table.add(
            f"of these, workers that went on, {words}",
            (str(each.not_ended) for each in found.values()),
            target="0",
            ok=not ours.not_ended,
        )


def add_stops(
    table: Table,
    words: str,
    measure: Callable[..., Iterable[tuple[Kind, float]]],
    on: Bench,
    options: argparse.Namespace,
    most: float,
) -> None:
    progress(f"stop latency, {words}")
    seconds: dict[Kind, list[float]] = {kind: [] for kind in table.kinds}
    reports = on.reports()
    for kind, latency in measure(on, table.kinds, options.stops, random.Random(options.seed)):
        seconds[kind].append(latency)
    stored = on.reports() - reports
    wanted = options.stops * (len(table.kinds) - 1)
    assert stored == wanted, "a report is missing: its time would be missing from the latency"
    for percent in (50, 95):
        figures = {kind: percentile(each, percent) * 1000 for kind, each in seconds.items()}
        table.compare(f"stop latency {words}, p{percent}", figures, "{:.1f} ms", most=most)


def add_starts(table: Table, on: Bench, options: argparse.Namespace) -> None:
    progress("start-up to the first job")
    seconds = starts(on, table.kinds, ONE, 1, options.starts)
    figures = {kind: statistics.median(each) * 1000 for kind, each in seconds.items()}
    ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds[GRACEFUL], seconds[STOCK], strict=True))
    table.compare("start-up to the first job's end", figures, "{:.0f} ms", most=START_RATIO, ratio=ratio)
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"{options.bursts} times a burst of {options.burst} jobs, {words}")
        runs = starts(on, table.kinds, queues, options.burst, options.bursts)
        rates = {kind: [options.burst / each for each in runs[kind]] for kind in table.kinds}
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[GRACEFUL], rates[STOCK], strict=True))
        table.compare(
            f"jobs per second of a burst of {options.burst}, start-up included, {words}",
            {kind: statistics.median(each) for kind, each in rates.items()},
            "{:.1f}",
            least=RATE_RATIO,
            ratio=ratio,
        )


def add_costs(table: Table, on: Bench) -> None:
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"connections, {words}")
        held = {kind: connections(on, kind, queues) for kind in table.kinds}
        table.add(
            f"connections of an idle worker, {words}",
            map(str, held.values()),
            target=f"{CONNECTIONS}",
            ok=held[GRACEFUL] == CONNECTIONS,
        )
    progress("commands")
    sent = {kind: float(commands(on, kind)) for kind in table.kinds}
    table.compare("commands that Redis is sent for one job", sent, "{:.0f}", most=1.0)
    for workers in (1, 20, 200):
        found = handing_out(on, workers)
        table.add(
            f"commands to hand one job out among {workers} idle workers (threads)",
            ["1", f"{found:.1f}", *("" for _ in table.kinds[2:])],
            target=f"<= {HANDING_OUT:g}",
            ok=found <= HANDING_OUT,
        )


def add_backlogs(table: Table, options: argparse.Namespace) -> None:
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"{options.pairs} times {options.jobs} jobs, {words}")
        runs = backlogs(table.kinds, queues, options.jobs, options.pairs)
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(runs[GRACEFUL].rates, runs[STOCK].rates, strict=True)
        )
        rates = {kind: statistics.median(run.rates) for kind, run in runs.items()}
        table.compare(f"jobs per second, {words}", rates, "{:.1f}", least=RATE_RATIO, ratio=ratio)
        cpu = {kind: run.cpu_seconds_a_job * 1000 for kind, run in runs.items()}
        table.compare(f"CPU time per job, {words}", cpu, "{:.1f} ms")
        peaks = {kind: run.peak_bytes / 2**20 for kind, run in runs.items()}
        table.compare(f"peak memory, {words}", peaks, "{:.1f} MiB", most=MEMORY_RATIO)


def machine(on: Bench) -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    server = on.connection.info("server")
    name = "Valkey" if "valkey_version" in server else "Redis"
    packages = ", ".join(f"{package} {version(package)}" for package in ("django", "django-rq", "rq", "redis"))
    return (
        f"{model}, {cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {packages}, "
        f"{name} {server.get('valkey_version', server['redis_version'])}; {datetime.now(UTC):%Y-%m-%d}"
    )


def jobs_table() -> int:
    """The table of what jobs may use, from a process of its own, whose Django has another database."""
    progress("interruptible and resumable jobs")
    print(flush=True)
    return subprocess.call([sys.executable, "-m", "tests.benchmarks.bench_jobs"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--signals", type=int, default=100, help="SIGTERMs for the count of lost jobs (default 100)")
    parser.add_argument("--stops", type=int, default=30, help="workers stopped for each latency (default 30)")
    parser.add_argument("--jobs", type=int, default=60, help="jobs of a backlog (default 60)")
    parser.add_argument("--pairs", type=int, default=30, help="backlogs for each kind of worker (default 30)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--starts", type=int, default=20, help="workers started for one job (default 20)")
    parser.add_argument("--burst", type=int, default=400, help="jobs of a burst (default 400)")
    parser.add_argument("--bursts", type=int, default=5, help="bursts for each kind of worker (default 5)")
    parser.add_argument("--before", type=Path, help="another checkout of this repository, measured too")
    parts = ["lost", "stops", "starts", "costs", "backlog", "jobs"]
    parser.add_argument("--only", choices=parts, help="one part alone")
    options = parser.parse_args()
    if options.only == "jobs":
        return jobs_table()
    table = Table((STOCK, GRACEFUL, *([earlier(options.before.resolve())] if options.before else [])))
    with bench() as on:
        if options.only in (None, "lost"):
            add_losses(table, options)
        if options.only in (None, "stops"):
            add_stops(table, "idle", idle_stops, on, options, IDLE_RATIO)
            add_stops(table, "busy, past the job's end", busy_stops, on, options, BUSY_RATIO)
        if options.only in (None, "starts"):
            add_starts(table, on, options)
        if options.only in (None, "costs"):
            add_costs(table, on)
        if options.only in (None, "backlog"):
            add_backlogs(table, options)
        table.print()
        print(f"\n{machine(on)}; seed {options.seed}.")
        print("`runworker_graceful` with one exit hook, its report stored in SQLite; stock does not have this package.")
    if options.only is None:
        table.reached &= jobs_table() == 0
    return 0 if table.reached else 1


if __name__ == "__main__":
    sys.exit(main())
