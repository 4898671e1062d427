"""``python -m tests.chaos.pools``: pools of real workers (``--workers N``), each with one fault at a random instant.

The seed is printed; ``--seed S --only N`` plays round N of it again, with the log of its pool.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from rq import Queue  # noqa: E402
from rq.job import Job  # noqa: E402

from graceful.core.pool import worst  # noqa: E402
from tests.chaos import jobs as chaos_jobs  # noqa: E402
from tests.chaos.faults import SETTINGS, TIMEOUT  # noqa: E402
from tests.chaos.faults.kinds import HORSE_KILLED  # noqa: E402
from tests.chaos.lane import Lane, StoredReport  # noqa: E402
from tests.chaos.ledger import VARIABLE, starts  # noqa: E402
from tests.chaos.plan import QUEUES  # noqa: E402
from tests.chaos.rounds import NOISE_SECONDS, REAPER_SECONDS, UNHURRIED, left_over  # noqa: E402
from tests.support.job_accounting import balance  # noqa: E402
from tests.support.processes import ROOT, pids_in_session  # noqa: E402
from tests.support.waiting import NeverHappened, let_pass, wait_until  # noqa: E402

MARGIN_SECONDS = 0.3
"""How much longer than its workers a pool waits (``graceful.worker.pool``)."""
STUCK_SECONDS = 8.0
ERRORS = re.compile(r"^Traceback \(most recent call last\)", re.MULTILINE)


class PoolProcess:
    """A pool, started as a user does it, in a session of its own."""

    def __init__(self, lane: Lane, workers: int, options: Sequence[str]) -> None:
        self.log = lane.directory / "pool.log"
        environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": lane.database_url,
            "TEST_GRACEFUL_SETTINGS": json.dumps({**lane.settings, **SETTINGS}),
            "TEST_RUN_DIR": str(lane.directory),
            "TEST_REDIS_URL": lane.server.url,
            VARIABLE: str(lane.ledger.path),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        command = [sys.executable, "-m", "django", "runworker_graceful", "default", "--workers", str(workers), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self.process.pid
        self.stopped_at: float | None = None
        self.killed = False

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> list[int]:
        """Processes whose parent is the pool's: its workers, and now and then the one that looks at new code."""
        return _children(self.pid)

    def signal(self, signum: signal.Signals, *, group: bool = False) -> None:
        if self.ended:
            return
        if signum == signal.SIGKILL:
            self.killed = True
        elif signum in (signal.SIGTERM, signal.SIGINT) and self.stopped_at is None:
            self.stopped_at = time.monotonic()
        (os.killpg if group else os.kill)(self.pid, signum)

    def end_all(self) -> None:
        for pid in pids_in_session(self.pid):
            _kill(pid)
        self.process.wait()


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


Fault = Callable[[PoolProcess, random.Random], None]


def term(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)


def term_group(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM, group=True)


def double_term(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    let_pass(rng.uniform(0, 0.6), "the first signal is ahead")
    pool.signal(rng.choice((signal.SIGTERM, signal.SIGINT)))


def kill_worker(pool: PoolProcess, rng: random.Random) -> None:
    workers = pool.workers()
    for pid in rng.sample(workers, rng.randint(1, len(workers))) if workers else []:
        _kill(pid)
    let_pass(rng.uniform(0, 1.2), "the parent has seen it, or has not")


def kill_horse(pool: PoolProcess, rng: random.Random) -> None:
    horses = [pid for worker in pool.workers() for pid in _children(worker)]
    for pid in rng.sample(horses, min(len(horses), 1)):
        _kill(pid)


def kill_parent(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGKILL)


def kill_stopping_parent(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    let_pass(rng.uniform(0, 0.8), "its workers are at some stage of their end")
    pool.signal(signal.SIGKILL)


def kill_stopping_worker(pool: PoolProcess, rng: random.Random) -> None:
    pool.signal(signal.SIGTERM)
    kill_worker(pool, rng)


def reload(pool: PoolProcess, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 2)):
        pool.signal(signal.SIGHUP)
        let_pass(rng.uniform(0, 2.5), "the new code is looked at, or workers are being replaced")


def reload_and_kill(pool: PoolProcess, rng: random.Random) -> None:
    reload(pool, rng)
    kill_worker(pool, rng)


def resize(pool: PoolProcess, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        pool.signal(rng.choice((signal.SIGTTIN, signal.SIGTTOU)))
        let_pass(rng.uniform(0, 0.3), "a worker may have been started")


def everything(pool: PoolProcess, rng: random.Random) -> None:
    """Signals of all kinds, before a stop and during it."""
    kinds = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT)
    for stopping in (False, True):
        if stopping:
            pool.signal(signal.SIGTERM)
        for _ in range(rng.randint(1, 5)):
            pool.signal(rng.choice(kinds))
            let_pass(rng.uniform(0, 0.2), "the parent has acted on it, or has not")


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        term,
        term_group,
        double_term,
        kill_worker,
        kill_horse,
        kill_parent,
        kill_stopping_parent,
        kill_stopping_worker,
        reload,
        reload_and_kill,
        resize,
        everything,
    )
}


def plan(seed: int, number: int, names: Sequence[str]) -> PoolRound:
    """The round of a number; faults take turns, everything else is drawn."""
    rng = random.Random(f"pool:{seed}:{number}")
    jobs = tuple(
        (rng.choices(("napping", "spinning", "stubborn"), (10, 1, 1))[0], rng.choice((0.0, 0.0, 0.05, 0.2, 0.5, 1.0)))
        for _ in range(rng.randint(6, 14))
    )
    options = ("--max-jobs", str(rng.randint(1, 3))) if rng.random() < 0.25 else ()
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
        wait_until(lambda: pool.ended or starts(lane.ledger.lines()), 20, lambda: f"a job: {pool.output}")
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
        pool.end_all()
        outcome.log = pool.output
    return outcome


def _see_out(pool: PoolProcess, outcome: PoolOutcome) -> None:
    """Stop the pool, unless the fault has; wait until it and all its processes are gone."""
    if not pool.killed and pool.stopped_at is None:
        pool.signal(signal.SIGTERM)
    began = pool.stopped_at or time.monotonic()
    try:
        wait_until(lambda: pool.ended and not _others(pool.pid), TIMEOUT + STUCK_SECONDS)
    except NeverHappened:
        outcome.wrong.append(f"processes {pids_in_session(pool.pid)} did not end")
        pool.signal(signal.SIGKILL)
        pool.end_all()
        return
    outcome.overrun = time.monotonic() - began - TIMEOUT - MARGIN_SECONDS
    if ERRORS.search(pool.output):
        outcome.wrong.append("a traceback in the log")


def _others(session: int) -> list[int]:
    return [pid for pid in pids_in_session(session) if pid != session]


def _check_code(pool: PoolProcess, reports: list[StoredReport], outcome: PoolOutcome) -> None:
    """The parent's exit code is one of its workers', or 70 where one was killed."""
    code = pool.process.wait()
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


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


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
