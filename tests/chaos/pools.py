"""``python -m tests.chaos.pools``: pools of real workers (``--workers N``), each with one fault at a random instant.

The seed is printed; ``--seed S --only N`` plays round N of it again, with the log of its pool.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from rq import Queue  # noqa: E402
from rq.job import Job  # noqa: E402

from graceful.core.pool import worst  # noqa: E402
from graceful.worker.pool.parent import MARGIN_SECONDS  # noqa: E402
from tests.chaos import jobs as chaos_jobs  # noqa: E402
from tests.chaos.faults import TIMEOUT  # noqa: E402
from tests.chaos.faults.kinds import HORSE_KILLED  # noqa: E402
from tests.chaos.lane import Lane, StoredReport  # noqa: E402
from tests.chaos.ledger import starts  # noqa: E402
from tests.chaos.plan import KINDS, QUEUES  # noqa: E402
from tests.chaos.pool_faults import FAULTS, PoolProcess  # noqa: E402
from tests.chaos.rounds import NOISE_SECONDS, REAPER_SECONDS, UNHURRIED, left_over  # noqa: E402
from tests.support.job_accounting import balance  # noqa: E402
from tests.support.processes import pids_in_session  # noqa: E402
from tests.support.waiting import NeverHappened, let_pass, wait_until  # noqa: E402

STUCK_SECONDS = 8.0
RECYCLING = (("--max-jobs", "1"), ("--max-jobs", "3"), ("--max-memory", "1"), ("--max-age", "1"))
"""Options that replace workers while a pool runs; each is above 1 MB after its first job."""
ERRORS = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)


@dataclass(frozen=True)
class PoolRound:
    """One round: a fault, the pool's size and options, its jobs, and the seed of what else is drawn."""

    seed: int
    number: int
    fault: str
    workers: int
    options: tuple[str, ...]
    jobs: tuple[tuple[str, float], ...]
    delay: float
    dice: int


@dataclass
class PoolOutcome:
    """What came of it."""

    round: PoolRound
    jobs: int = 0
    wrong: list[str] = field(default_factory=list)
    meant: Counter[str] = field(default_factory=Counter)
    overrun: float | None = None
    log: str = ""


def plan(seed: int, number: int, names: Sequence[str]) -> PoolRound:
    """The round of a number; faults take turns, everything else is drawn."""
    rng = random.Random(f"pool:{seed}:{number}")
    jobs = tuple(
        (rng.choices(KINDS, (9, 1, 1, 1))[0], rng.choice((0.0, 0.0, 0.05, 0.2, 0.5, 1.0)))
        for _ in range(rng.randint(6, 14))
    )
    options = rng.choice(RECYCLING) if rng.random() < 0.4 else ()
    return PoolRound(
        seed=seed,
        number=number,
        fault=names[number % len(names)],
        workers=rng.randint(1, 4),
        options=options,
        jobs=jobs,
        delay=rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 0.8))),
        dice=rng.getrandbits(32),
    )


def play(lane: Lane, planned: PoolRound) -> PoolOutcome:
    """Play a round on a lane."""
    lane.clean()
    outcome, rng = PoolOutcome(planned), random.Random(planned.dice)
    queue = Queue("default", connection=lane.connection)
    ids = [queue.enqueue(chaos_jobs.JOBS[kind], seconds, job_timeout=60).id for kind, seconds in planned.jobs]
    outcome.jobs = len(ids)
    pool = PoolProcess(lane, planned.workers, planned.options)
    try:
        wait_until(lambda: not pool.running or starts(lane.ledger.lines()), 20, lambda: f"a job: {pool.output}")
        let_pass(planned.delay, "the fault comes at a random instant")
        FAULTS[planned.fault](pool, rng)
        _see_out(pool, outcome)
        reports = lane.reports()
        _check_code(pool, reports, outcome)
        reaper = lane.start_worker(QUEUES, "burst", settings=UNHURRIED)
        if not reaper.ended.wait(REAPER_SECONDS) or reaper.code:
            outcome.wrong.append(f"the reaper: {reaper!r}\n{reaper.output[-2000:]}")
        _check_jobs(lane, ids, planned, outcome)
        _check_reports(lane, outcome)
        outcome.wrong += [f"left over: {each}" for each in left_over(lane, "nobody")]
    except NeverHappened as error:
        outcome.wrong.append(f"the round did not come to its end: {error}")
    finally:
        pool.clear()
        outcome.log = pool.output
    return outcome


def _see_out(pool: PoolProcess, outcome: PoolOutcome) -> None:
    """Stop the pool, unless the fault has; wait until it and all its processes are gone."""
    if not pool.killed and pool.stopped_at is None:
        pool.signal(signal.SIGTERM)
    began = pool.stopped_at or time.monotonic()
    try:
        wait_until(lambda: not pool.running and not pool.children(), TIMEOUT + STUCK_SECONDS)
    except NeverHappened:
        outcome.wrong.append(f"processes {pids_in_session(pool.pid)} did not end")
        pool.killed = True
        pool.clear()
        return
    outcome.overrun = time.monotonic() - began - TIMEOUT - MARGIN_SECONDS
    if ERRORS.search(pool.output):
        outcome.wrong.append("a traceback in the log")


def _check_code(pool: PoolProcess, reports: list[StoredReport], outcome: PoolOutcome) -> None:
    """The parent's exit code is one of its workers', or 70 where one was killed."""
    code = pool.wait()
    if pool.killed:
        return
    known = [report.exit_code for report in reports if report.exit_code is not None]
    unclean = any(report.exit_code is None for report in reports)
    # A worker that was still starting has no report, and ends with 0: whoever came last may have been one.
    still_starting = not known or outcome.round.fault not in ("term", "term_group", "double_term")
    # One that was killed before it had a report, or after it had sealed one, makes 70 of it all the same.
    killed = unclean or "kill" in outcome.round.fault
    fine = (
        {worst([each]) for each in known} | ({os.EX_SOFTWARE} if killed else set()) | ({0} if still_starting else set())
    )
    if code not in fine:
        outcome.wrong.append(f"exit code {code}, in the reports {sorted(known)}{' and a killed one' * unclean}")


def _check_jobs(lane: Lane, ids: list[str], planned: PoolRound, outcome: PoolOutcome) -> None:
    lines = lane.ledger.lines()
    outcome.wrong += [f"{line.job} ran twice at once" for line in lines if line.what == "twice"]
    kills = "kill" in planned.fault
    if not kills:
        ended = Counter(line.job for line in lines if line.what == "end")
        outcome.wrong += [f"{job} was done twice" for job, times in ended.items() if times > 1]
    for job_id, places in balance(lane.connection, ids, QUEUES).places.items():
        kinds = [place.partition(":")[0] for place in places]
        if kinds == ["finished"]:
            continue
        if kinds != ["failed"]:
            outcome.wrong.append(f"{job_id} is in {'+'.join(places) or 'no place'}")
            continue
        result = Job.fetch(job_id, connection=lane.connection).latest_result()
        reason = ((result and result.exc_string) or "").strip().rpartition("\n")[2]
        if kills and HORSE_KILLED.is_reason(reason):
            outcome.meant[HORSE_KILLED.name] += 1
        else:
            outcome.wrong.append(f"{job_id} failed: {reason}")


def _check_reports(lane: Lane, outcome: PoolOutcome) -> None:
    """Each worker has one report, stored."""
    found = Counter(report.pid for report in lane.reports())
    outcome.wrong += [f"{times} reports of process {pid}" for pid, times in found.items() if times > 1]
    outcome.wrong += [f"a report is in the {each.place}" for each in lane.reports() if each.place != "database"]


def main() -> int:
    """Returns the exit code: 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pools", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--fault", choices=list(FAULTS), help="only this one")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="only the round of this number, with its log")
    arguments = parser.parse_args()
    names = [arguments.fault] if arguments.fault else list(FAULTS)
    numbers = range(arguments.rounds) if arguments.only is None else [arguments.only]
    print(f"{len(numbers)} rounds of pools, seed {arguments.seed}", flush=True)
    outcomes = []
    with Lane() as lane:
        for number in numbers:
            outcome = play(lane, plan(arguments.seed, number, names))
            outcomes.append(outcome)
            if outcome.wrong or arguments.only is not None:
                print(f"{'WRONG' if outcome.wrong else 'fine'} {outcome.round}")
                print("\n".join(f"   {each}" for each in outcome.wrong))
            if arguments.only is not None:
                print(outcome.log)
    jobs, meant = sum(each.jobs for each in outcomes), sum((each.meant for each in outcomes), Counter[str]())
    overruns = [each.overrun for each in outcomes if each.overrun is not None]
    late = sum(each > NOISE_SECONDS for each in overruns)
    wrong = sum(bool(each.wrong) for each in outcomes)
    worst_end = max(overruns, default=0)
    print(f"{len(outcomes)} rounds, {jobs} jobs, {wrong} rounds wrong, {late} late, worst {worst_end:+.2f} s")
    print(f"failures that are meant: {dict(meant)}; again: --seed {arguments.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
