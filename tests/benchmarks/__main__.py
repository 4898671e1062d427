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

from tests.benchmarks.measures import (
    COMMANDS,
    GRACEFUL,
    STOCK,
    Bench,
    backlogs,
    bench,
    busy_stops,
    idle_stops,
    losses,
    percentile,
)

ONE = ("default",)
THREE = ("high", "default", "low")
LATENCY_RATIO = 0.35
RATE_RATIO = 0.97


@dataclass
class Table:
    """The rows, and whether every target was reached."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    reached: bool = True

    def add(self, what: str, stock: str, graceful: str, ratio: str = "", target: str = "", ok: bool = True) -> None:
        self.reached &= ok
        self.rows.append((what, stock, graceful, ratio, f"{target}{'' if ok else ' MISSED'}"))

    def print(self) -> None:
        rows = [("", "stock `rqworker`", "`runworker_graceful`", "ratio", "target"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        rows.insert(1, tuple("-" * width for width in widths))
        for row in rows:
            print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |")


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def add_losses(table: Table, options: argparse.Namespace) -> None:
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"jobs lost in {options.signals} SIGTERMs, {words}")
        # Nothing is timed here, so both kinds run at once, at the same chosen instants.
        with ThreadPoolExecutor(2) as pool:
            pending = [
                pool.submit(losses, command, queues, options.signals, random.Random(options.seed))
                for command in COMMANDS
            ]
            stock, graceful = (each.result() for each in pending)
        table.add(
            f"jobs lost in {options.signals} SIGTERMs, {words}",
            f"{stock.gone} gone, {stock.stuck} stuck, of {stock.jobs}",
            f"{graceful.gone} gone, {graceful.stuck} stuck, of {graceful.jobs}",
            target="0",
            ok=not graceful.lost and not graceful.twice,
        )
        table.add(
            f"of these, workers that went on, {words}",
            str(stock.not_ended),
            str(graceful.not_ended),
            target="0",
            ok=not graceful.not_ended,
        )


def add_stops(
    table: Table,
    words: str,
    measure: Callable[..., Iterable[tuple[str, float]]],
    on: Bench,
    options: argparse.Namespace,
) -> None:
    progress(f"stop latency, {words}")
    seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
    reports = on.reports()
    for command, latency in measure(on, options.stops, random.Random(options.seed)):
        seconds[command].append(latency)
    assert on.reports() - reports == options.stops, "a report is missing: its time would be missing from the latency"
    for percent in (50, 95):
        stock, graceful = (percentile(seconds[command], percent) for command in (STOCK, GRACEFUL))
        table.add(
            f"stop latency {words}, p{percent}",
            f"{stock * 1000:.0f} ms",
            f"{graceful * 1000:.0f} ms",
            f"{graceful / stock:.2f}",
            f"<= {LATENCY_RATIO}",
            graceful / stock <= LATENCY_RATIO,
        )


def add_backlogs(table: Table, options: argparse.Namespace) -> None:
    for queues, words in ((ONE, "one queue"), (THREE, "three queues")):
        progress(f"{options.pairs} times {options.jobs} jobs, {words}")
        runs = backlogs(queues, options.jobs, options.pairs)
        stock, graceful = runs[STOCK], runs[GRACEFUL]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(graceful.rates, stock.rates, strict=True))
        table.add(
            f"jobs per second, {words}",
            f"{statistics.median(stock.rates):.1f}",
            f"{statistics.median(graceful.rates):.1f}",
            f"{ratio:.2f}",
            f">= {RATE_RATIO}",
            ratio >= RATE_RATIO,
        )
        cpu = [run.cpu_seconds_a_job * 1000 for run in (stock, graceful)]
        table.add(f"CPU time per job, {words}", f"{cpu[0]:.1f} ms", f"{cpu[1]:.1f} ms", f"{cpu[1] / cpu[0]:.2f}")
        peaks = [run.peak_bytes / 2**20 for run in (stock, graceful)]
        table.add(f"peak memory, {words}", f"{peaks[0]:.1f} MiB", f"{peaks[1]:.1f} MiB", f"{peaks[1] / peaks[0]:.2f}")


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
    parser.add_argument("--only", choices=["lost", "stops", "backlog", "jobs"], help="one part alone")
    options = parser.parse_args()
    if options.only == "jobs":
        return jobs_table()
    table = Table()
    with bench() as on:
        if options.only in (None, "lost"):
            add_losses(table, options)
        if options.only in (None, "stops"):
            add_stops(table, "idle", idle_stops, on, options)
            add_stops(table, "busy, past the job's end", busy_stops, on, options)
        if options.only in (None, "backlog"):
            add_backlogs(table, options)
        table.print()
        print(f"\n{machine(on)}; seed {options.seed}.")
        print("`runworker_graceful` with one exit hook, its report stored in SQLite; stock has neither.")
    if options.only is None:
        table.reached &= jobs_table() == 0
    return 0 if table.reached else 1


if __name__ == "__main__":
    sys.exit(main())
