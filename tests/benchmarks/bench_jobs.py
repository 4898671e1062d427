"""``python -m tests.benchmarks.bench_jobs``: what interruptibility costs a job, and what an interruption does."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from signal import SIGKILL

if __name__ == "__main__":
    # Set before Django reads its settings, which the imports below make it do.
    _directory = tempfile.TemporaryDirectory(prefix="graceful-bench-jobs-")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["DATABASE_URL"] = f"sqlite:///{_directory.name}/bench.sqlite3"
    os.environ["TEST_RUN_DIR"] = _directory.name

import django
import redis

django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db.models import Model, QuerySet  # noqa: E402
from rq import Queue  # noqa: E402

from graceful.jobs import interruption, resumable, shutdown_requested  # noqa: E402
from graceful.jobs.shared_memory import SharedMemory  # noqa: E402
from tests.support import resumable_jobs as jobs  # noqa: E402
from tests.support.processes import WorkerProcess  # noqa: E402
from tests.support.server import Server  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

CALLS = 200_000
ROUNDS = 9
LEAST_SHARE = 0.8
ITEM_SECONDS = 0.005
STOCK_GRACE_SECONDS = 2.0
Row = tuple[str, str, str, str, str]


def ask() -> Row:
    """The time of one ``shutdown_requested()`` in a job."""
    seconds = min(timeit.repeat(shutdown_requested, number=CALLS, repeat=ROUNDS)) / CALLS
    return ("`shutdown_requested()` in a job", "", f"{seconds * 1e9:.0f} ns", "", _judged(seconds < 1e-6, "< 1000 ns"))


def rows_a_second(model: type[Model], rows: int) -> Row:
    """``resumable`` beside ``QuerySet.iterator``, in turns; the best of each, which other load disturbs least."""
    queryset: QuerySet[Model] = model._default_manager.order_by("pk")
    assert queryset.count() == rows
    number = count()
    walks: tuple[Callable[[], Iterable[Model]], ...] = (
        lambda: queryset.iterator(),
        lambda: resumable(queryset, name=f"{model.__name__} {next(number)}"),
    )
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for walk, rate in zip(walks, rates, strict=True):
            began = time.perf_counter()
            handed_out = sum(1 for _ in walk())
            rate.append(rows / (time.perf_counter() - began))
            assert handed_out == rows
    theirs, ours = map(max, rates)
    return (
        f"rows per second of {model.__name__} ({len(model._meta.concrete_fields)} columns, {rows} rows)",
        f"{theirs:.0f} (`.iterator()`)",
        f"{ours:.0f} (`resumable`)",
        f"{ours / theirs:.2f}",
        _judged(ours / theirs >= LEAST_SHARE, f">= {LEAST_SHARE}"),
    )


def repeated(command: str, items: int, directory: Path, server: Server) -> tuple[int, float]:
    """Stop a worker in the middle of a job, run the job to its end in a second; items done twice, seconds to stop.

    The stock worker waits for its job without limit, so the platform kills it after its grace period; RQ then fails the
    job as abandoned, and here it is enqueued again by hand.
    """
    connection = redis.Redis.from_url(server.url)
    queue = Queue(connection=connection)
    job = queue.enqueue(jobs.over_groups, ITEM_SECONDS, job_timeout=600)

    def worker(*options: str) -> WorkerProcess:
        environment = {key: os.environ[key] for key in ("DATABASE_URL", "TEST_RUN_DIR")}
        return WorkerProcess(
            connection,
            options=options,
            command=command,
            output=directory / "worker.log",
            environment={**environment, "TEST_REDIS_URL": server.url},
        )

    def done() -> int:
        return int(connection.llen(jobs.ITEMS + job.id))

    first = worker()
    wait_until(lambda: done() >= items // 2, 60)
    began = time.monotonic()
    first.signal()
    try:
        first.wait(STOCK_GRACE_SECONDS)
    except AssertionError:
        first.signal_session(SIGKILL)
        first.process.wait(5)
    seconds = time.monotonic() - began
    first.clear()
    if job.id not in queue.job_ids:
        queue.started_job_registry.remove_executions(job)
        queue.enqueue_job(job)
    second = worker("--burst")
    second.process.wait(120)
    second.clear()
    assert job.get_status() == "finished", second.output
    connection.close()
    return done() - items, seconds


def interruptions(items: int) -> list[Row]:
    """The same job, interrupted in its middle, under both workers."""
    directory = Path(os.environ["TEST_RUN_DIR"])
    found = []
    for command in ("rqworker", "runworker_graceful"):
        with Server() as server:
            found.append(repeated(command, items, directory, server))
    (theirs, their_seconds), (ours, our_seconds) = found
    how = f"stopped at item {items // 2} of {items}"
    return [
        (f"items repeated, {how}", str(theirs), str(ours), "", _judged(ours <= 1, "<= 1")),
        (
            f"worker gone, {how}",
            f"{their_seconds:.2f} s (killed)" if their_seconds >= STOCK_GRACE_SECONDS else f"{their_seconds:.2f} s",
            f"{our_seconds:.2f} s",
            "",
            "",
        ),
    ]


def _judged(reached: bool, target: str) -> str:
    return target if reached else f"{target} MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_jobs", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows to go over (default 100000)")
    parser.add_argument("--items", type=int, default=1000, help="items of the job that is stopped (default 1000)")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    Group.objects.bulk_create((Group(name=f"group {number}") for number in range(options.rows)), batch_size=400)
    User.objects.bulk_create((User(username=f"user {number}") for number in range(options.rows)), batch_size=80)
    memory = SharedMemory()
    guard = interruption.install(memory)
    assert guard is not None
    guard.begin()
    table = [ask(), rows_a_second(Group, options.rows), rows_a_second(User, options.rows)]
    guard.end(True)
    interruption.install(None)
    Group.objects.filter(pk__gt=Group.objects.order_by("pk")[options.items - 1].pk).delete()
    table += interruptions(options.items)
    lines = [("", "stock", "graceful", "ratio", "target"), *table]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    lines.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * widths[3], "-" * widths[4]))
    for line in lines:
        print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |")
    return 1 if any("MISSED" in line[4] for line in table) else 0


if __name__ == "__main__":
    sys.exit(main())
