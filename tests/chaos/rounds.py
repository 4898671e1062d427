"""Plays one round, and balances the books from outside."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import rq
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job

from tests.chaos import jobs as chaos_jobs
from tests.chaos.actors import ACTORS, User
from tests.chaos.faults import FAULTS, SETTINGS, STOPPED, TIMEOUT, Fault, Scene
from tests.chaos.lane import Lane, StoredReport, Worker
from tests.chaos.ledger import starts, turns
from tests.chaos.plan import QUEUES, Round
from tests.model import replay
from tests.support.job_accounting import balance
from tests.support.processes import pids_in_session
from tests.support.waiting import NeverHappened, wait_until

NOISE_SECONDS = 0.25
"""How much later than the grace period an end may be seen from outside."""
TOLERATED_SECONDS = 1.0
"""An overrun up to this is the machine's load, and is only reported."""
STUCK_SECONDS = 8.0
"""A worker that is still there so long after its grace period is killed, and has failed."""
STOCK_SECONDS = 8.0
"""The stock worker has no grace period: the platform's SIGKILL comes after so long."""
BOTH = ({"finished", "canceled"}, {"failed", "canceled"}, {"finished", "failed"})
"""Where RQ leaves a job that a user cancelled while it ran, or stopped when its result was stored and its horse not yet
gone: in two registries (``Worker.monitor_work_horse`` in rq/worker/worker_classes.py, read in 2.6.1 and 3.0.0)."""
REAPER_SECONDS = 20.0
UNHURRIED = {**SETTINGS, "GRACEFUL_TIMEOUT": 15.0, "GRACEFUL_HOOKS_TIMEOUT": 10.0}
"""Of the reaper: it shows what is left over, and not how quick it is."""
MAY_STAY = re.compile(
    r"rq:job:[^:]+(:execution:.*|:executions|:dependents)?|rq:results:.*|rq:queues?(:[a-z]+)?|rq:(finished|failed|canceled|scheduled):[a-z]+"
    # RQ's maintenance notes when it first saw a job in the intermediate queue, and forgets it after a day.
    r"|rq:queue:[a-z]+:intermediate:first_seen:.*"
    # RQ keeps the hash of a worker that has ended for a minute, and these two as locks of its maintenance.
    r"|rq:worker:[^:]+|rq:clean_groups|rq:clean_registries:[a-z]+"
    # Leases of a worker that was killed while it waited for a job; they end by themselves.
    r"|graceful:(watching|asleep):rq:queue:[a-z]+|graceful:wake:[0-9a-f]+"
    # When interrupted jobs ran again, until maintenance has moved it into their reports.
    # A slot for storing reports, of a worker that was killed; it expires.
    r"|graceful:storing"
    r"|graceful:resumed" + (r"|rq:scheduler-lock:[a-z]+" if int(rq.VERSION.partition(".")[0]) < 3 else "")
    # RQ 2.x writes nothing into a scheduler's lock from which one could tell whose it is.
)
QUEUE = re.compile(r"rq:queue:[a-z]+")
MAY_EXPIRE = ("rq:worker:", "rq:clean_", "rq:scheduler-lock:", "rq:queue:", "graceful:")


@dataclass
class Outcome:
    """What came of a round."""

    round: Round
    actor: str = "nobody"
    """Who else was there: the round's, unless it cannot be on the lane, or a stock worker is what is tried."""
    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    meant: Counter[str] = field(default_factory=Counter)
    """Failures of jobs that the fault explains: their names, and how many."""
    reports_missing: list[str] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    """Jobs whose interruptions are not counted as the reports tell of them."""
    codes: list[str] = field(default_factory=list)
    """Exit codes that are not the report's."""
    left_over: list[str] = field(default_factory=list)
    overrun: float | None = None
    """Seconds past the grace period; negative if it was kept to, None if nobody asked the worker to stop."""
    seconds: float = 0.0
    logs: str = ""

    @property
    def wrong(self) -> list[str]:
        """What is wrong, in words; empty if the books balance."""
        kinds = {
            "lost": self.lost,
            "doubled": self.doubled,
            "failed": self.failed,
            "reports": self.reports_missing,
            "counts": self.counts,
            "exit codes": self.codes,
            "left over": self.left_over,
        }
        return [f"{kind}: {', '.join(found)}" for kind, found in kinds.items() if found]


def play(lane: Lane, plan: Round, *, stock: bool = False) -> Outcome:
    """Play a round on a lane.

    Args:
        stock: with django-rq's own worker instead of ours.
    """
    began = time.monotonic()
    lane.clean()
    fault = FAULTS[plan.fault]
    outcome = Outcome(plan)
    rng = random.Random(plan.dice)
    ids = [_enqueue(lane, kind, seconds, queue) for kind, seconds, queue in plan.jobs]
    ids += [_enqueue_in(lane, seconds) for seconds in plan.later]
    outcome.jobs = len(ids)
    settings = {**SETTINGS, **(fault.settings(rng) if fault.settings else {})}
    if not stock and plan.actor in lane.actors:
        outcome.actor = plan.actor
    company = Company(lane, outcome.actor, ids, rng)
    workers: list[Worker] = []
    try:
        company.arrive()
        workers.append(
            lane.start_worker(
                plan.queues,
                plan.mode,
                stock=stock,
                proxied=fault.proxied,
                settings=settings,
                bent_clock=plan.fault == "clock_back",
                piped=plan.fault == "disk_full",
            )
        )
        if plan.rival and not fault.alone:
            workers.append(lane.start_worker(plan.queues, plan.mode, stock=stock, settings=SETTINGS))
        scene = Scene(lane, plan, workers[0], rng, company.process)
        _wait_for_work(lane, scene.worker)
        for each in workers:
            _wait_for_registration(lane, each)
        if not fault.alone:
            company.join_in(plan.queues)
        scene.sleep(plan.delay)
        with _lifted(scene):
            if not scene.worker.ended.is_set():
                fault.strike(scene)
            _see_out(scene, outcome, stock)
        for rival in workers[1:]:
            rival.signal(signal.SIGTERM)
            if not rival.ended.wait(STUCK_SECONDS + TIMEOUT):
                outcome.left_over.append(f"{rival!r} did not end")
                rival.signal_session(signal.SIGKILL)
        _wait_for_horses(lane, workers, outcome, stock)
        company.fall_silent()
        name = workers[0].name if plan.same_name and not stock else ""
        scheduled = bool(plan.later)
        reaper = lane.start_worker(
            QUEUES, "burst", stock=stock, settings=UNHURRIED, name=name, with_scheduler=scheduled
        )
        workers.append(reaper)
        if not reaper.ended.wait(REAPER_SECONDS):
            outcome.left_over.append(f"the reaper did not end: {reaper!r}")
            reaper.signal_session(signal.SIGKILL)
            reaper.ended.wait(5)
        elif reaper.code:
            outcome.left_over.append(f"the reaper: {reaper!r}")
        outcome.left_over += company.leave()
        JobAccounting(lane, fault, plan, company.touched, outcome).balance(ids, workers, settings, stock)
    except (AssertionError, RedisError) as error:
        outcome.left_over.append(f"the round did not come to its end: {error}")
    finally:
        company.leave()
        outcome.logs = "\n".join(f"--- {each!r}\n{each.output}" for each in (*workers, *company.processes))
        outcome.seconds = time.monotonic() - began
    return outcome


class Company:
    """Whoever else is there in a round.

    Args:
        lane: where.
        actor: one of :data:`tests.chaos.plan.ACTORS`.
        ids: of the round's jobs.
        rng: for what is drawn.
    """

    def __init__(self, lane: Lane, actor: str, ids: list[str], rng: random.Random) -> None:
        self._lane = lane
        self._actor = actor
        self._user: User | None = None
        if actor in ("stop job", "cancel"):
            self._user = User(lane.connection, actor, ids, random.Random(rng.getrandbits(32)))
        self.process: Worker | None = None

    @property
    def processes(self) -> list[Worker]:
        return [] if self.process is None else [self.process]

    @property
    def touched(self) -> frozenset[str]:
        """Ids of the jobs that a user meant to stop or to cancel."""
        return frozenset(self._user.touched if self._user else ())

    def arrive(self) -> None:
        """Start what reads or enqueues, and wait until it does."""
        if self._actor not in ACTORS:
            return
        self.process = process = self._lane.start_actor(self._actor)

        def there() -> bool:
            assert not process.ended.is_set(), process.output
            if self._actor == "cron":
                return bool(self._lane.connection.exists("rq:cron_schedulers"))
            return turns(self._lane.ledger.lines(), self._actor) > 0

        wait_until(there, 20, lambda: f"{self._actor} at work: {process.output}")

    def join_in(self, queues: Sequence[str]) -> None:
        """Start what works beside the worker, once that has its first job."""
        if self._user is not None:
            self._user.start()
        if self._actor == "stock":
            self.process = self._lane.start_worker(queues, "one queue", stock=True)
            _wait_for_registration(self._lane, self.process)

    def fall_silent(self) -> None:
        """No further job comes, and none is meddled with."""
        if self._user is not None and self._user.ident is not None:
            self._user.leave()
        if self._actor == "cron" and self.process is not None:
            self.process.signal(signal.SIGTERM)
            self.process.ended.wait(5)

    def leave(self) -> list[str]:
        """End what is left of them.

        Returns:
            what is wrong with it.
        """
        self.fall_silent()
        process, wrong = self.process, []
        if process is None or process.ended.is_set():
            return []
        if self._actor == "stock":
            key = f"rq:worker:{process.name}"
            connection = self._lane.connection
            try:
                # Only then, because a stock worker may lose the job that it is taking when the signal comes.
                wait_until(
                    lambda: connection.hget(key, "state") == b"idle" and not connection.hget(key, "current_job"), 10
                )
                process.signal(signal.SIGTERM)
                wait_until(process.ended.is_set, 15)
            except NeverHappened as error:
                wrong = [f"the stock worker {process!r}: {error}"]
        process.signal_session(signal.SIGKILL)
        process.ended.wait(5)
        return wrong


def _enqueue(lane: Lane, kind: str, seconds: float, queue: str) -> str:
    job = Queue(queue, connection=lane.connection).enqueue(chaos_jobs.JOBS[kind], seconds, job_timeout=60)
    return str(job.id)


def _enqueue_in(lane: Lane, seconds: float) -> str:
    """For RQ's scheduler, in the worker's queue."""
    queue = Queue(QUEUES[0], connection=lane.connection)
    return str(queue.enqueue_in(timedelta(seconds=seconds), chaos_jobs.napping, 0.0, job_timeout=60).id)


def _wait_for_work(lane: Lane, worker: Worker) -> None:
    """Wait until the worker is at its first job, so that the fault does not come before there is anything to break."""
    wait_until(lambda: worker.ended.is_set() or starts(lane.ledger.lines()), 20, lambda: f"a job: {worker.output}")


def _wait_for_registration(lane: Lane, worker: Worker) -> None:
    """Wait until a worker has started; one that finds no Redis at its start has nothing to report."""
    key = f"rq:worker:{worker.name}"
    wait_until(
        lambda: worker.ended.is_set() or lane.connection.sismember("rq:workers", key),
        20,
        lambda: f"a registration: {worker.output}",
    )


@contextmanager
def _lifted(scene: Scene) -> Iterator[None]:
    try:
        yield
    finally:
        scene.lift()


def _see_out(scene: Scene, outcome: Outcome, stock: bool) -> None:
    """Wait for the worker's end, while the fault may still last, and see how late it was."""
    worker = scene.worker
    if scene.stopped_at is None and not worker.killed and not worker.ended.is_set():
        scene.stop()
    stopped_at = scene.stopped_at
    patience = STOCK_SECONDS if stock else TIMEOUT + STUCK_SECONDS
    if not worker.ended.wait(patience):
        if not stock:
            outcome.left_over.append(f"{worker!r} did not end")
            worker.signal(signal.SIGUSR1)  # Its stacks go into its log.
            time.sleep(0.3)
        worker.signal_session(signal.SIGKILL)
        worker.ended.wait(5)
    if stopped_at is not None and not worker.killed:
        outcome.overrun = worker.ended_at - max(stopped_at + TIMEOUT, scene.excused_until)


def _wait_for_horses(lane: Lane, workers: list[Worker], outcome: Outcome, stock: bool) -> None:
    """Horses learn of their worker's death by themselves; those of the stock worker go on to the end of their job."""
    for worker in workers:
        try:
            wait_until(lambda pid=worker.pid: not pids_in_session(pid), 5, interval=0.005)  # type: ignore[misc]
            wait_until(lambda pid=worker.pid: not lane.zombies(pid), 5, interval=0.005)  # type: ignore[misc]
        except NeverHappened:
            if not stock:
                outcome.left_over.append(f"processes {pids_in_session(worker.pid)} of {worker!r}")
            worker.signal_session(signal.SIGKILL)


class JobAccounting:
    """The books of one round.

    Args:
        lane: where.
        fault: what was broken.
        plan: the round.
        touched: ids of the jobs that a user meant to stop or to cancel.
        outcome: takes what is wrong.
    """

    def __init__(self, lane: Lane, fault: Fault, plan: Round, touched: frozenset[str], outcome: Outcome) -> None:
        self._lane = lane
        self._fault = fault
        self._plan = plan
        self._touched = touched
        self._outcome = outcome

    def balance(self, ids: list[str], workers: list[Worker], settings: Mapping[str, Any], stock: bool) -> None:
        if self._outcome.actor == "cron":
            keys = (key.decode() for key in self._lane.connection.keys("rq:job:*"))
            ids = [*ids, *(key.split(":")[2] for key in keys if key.count(":") == 2 and key.split(":")[2] not in ids)]
            self._outcome.jobs = len(ids)
        self._balance_places(ids)
        self._balance_runs(ids)
        if not stock:
            if directory := os.environ.get("CHAOS_DUMPS"):
                # For `python -m tests.model replay`: what the server holds at rest.
                replay.dump(self._lane.connection, list(QUEUES), Path(directory) / f"{uuid4().hex}.json")
            self._balance_reports(workers, settings)
            self._balance_interruptions(ids, len(workers))
            self._outcome.left_over += left_over(self._lane, self._outcome.actor)

    def _balance_places(self, ids: list[str]) -> None:
        outcome = self._outcome
        for job_id, places in balance(self._lane.connection, ids, QUEUES).places.items():
            kinds = {place.partition(":")[0] for place in places}
            fine = {"queue", "finished", "failed"}
            # Until a scheduler of another worker gets the lock, which in RQ 2.x takes a minute.
            fine |= {"scheduled"} if self._plan.later else set()
            if job_id in self._touched:
                fine.add("canceled")
                if kinds in BOTH:
                    continue
            if not kinds & fine:
                outcome.lost.append(f"{job_id} is in {'+'.join(places) or 'no place'}")
            elif len(places) > 1:
                outcome.doubled.append(f"{job_id} is in {'+'.join(places)}")
            elif "failed" in kinds:
                self._enter_failure(job_id)

    def _enter_failure(self, job_id: str) -> None:
        """A failure is one of those that the fault is meant to cause, or wrong."""
        result = Job.fetch(job_id, connection=self._lane.connection).latest_result()
        reason = ((result and result.exc_string) or "").strip().rpartition("\n")[2]
        meant = (*self._fault.may_fail, *([STOPPED] if job_id in self._touched else ()))
        for failure in meant:
            if failure.is_reason(reason):
                self._outcome.meant[failure.name] += 1
                return
        self._outcome.failed.append(f"{job_id}: {reason or 'no reason'}")

    def _balance_runs(self, ids: list[str]) -> None:
        outcome, lines = self._outcome, self._lane.ledger.lines()
        outcome.doubled += [f"{line.job} ran twice at once" for line in lines if line.what == "twice"]
        if not self._fault.may_redo:
            ended = Counter(line.job for line in lines if line.what == "end")
            outcome.doubled += [f"{job} was done twice" for job, times in sorted(ended.items()) if times > 1]
        if outcome.actor == "cron" and self._fault.may_repeat:
            return  # Redis has forgotten of jobs that cron had enqueued, too.
        for job, times in starts(lines).items():
            if job not in ids:
                outcome.doubled.append(f"{job} is no job of this round, and ran {times} times")

    def _balance_reports(self, workers: list[Worker], settings: Mapping[str, Any]) -> None:
        outcome, reports = self._outcome, self._lane.reports()
        for worker in workers:
            found = [report for report in reports if report.pid == worker.pid]
            if len(found) != 1:
                places = [report.place for report in found]
                outcome.reports_missing.append(f"{worker!r} has {len(found)} reports {places}")
            elif not worker.killed and worker.code not in _codes(found[0], settings, self._fault):
                report = found[0]
                outcome.codes.append(f"{worker!r}, its report says {report.exit_code}, {report.outcome}")
        strangers = [report.pid for report in reports if report.pid not in [worker.pid for worker in workers]]
        if strangers:
            outcome.reports_missing.append(f"reports of nobody: {strangers}")

    def _balance_interruptions(self, ids: list[str], workers: int) -> None:
        """What a report tells of is counted in the job, and no worker counts twice."""
        if self._fault.may_repeat:
            return
        told = self._lane.interruptions_told()
        for job_id in ids:
            counted = int(self._lane.connection.hget(f"rq:job:{job_id}", "graceful_interruptions") or 0)
            if not told[job_id] <= counted <= workers:
                self._outcome.counts.append(f"{job_id}: {counted} counted, {told[job_id]} in the reports")


def _codes(report: StoredReport, settings: Mapping[str, Any], fault: Fault) -> list[int | None]:
    """The exit codes that go with a report: its own, or those of what ends the process before it can seal one."""
    if report.exit_code is not None:
        return [report.exit_code, *fault.codes]
    hooks = [str(hook).rpartition(".")[2] for hook in settings["GRACEFUL_EXIT_HOOKS"]]
    codes: list[int | None] = [chaos_jobs.WORDLESS[hook] for hook in hooks if hook in chaos_jobs.WORDLESS]
    return [*codes, *fault.codes, *fault.unsealed]


def left_over(lane: Lane, actor: str) -> list[str]:
    found = []
    for key in sorted(key.decode() for key in lane.connection.keys("*")):
        if actor == "cron" and key.startswith("rq:cron_"):
            continue
        expires = lane.connection.ttl(key) != -1
        if not MAY_STAY.fullmatch(key) or (key.startswith(MAY_EXPIRE) and not expires and not QUEUE.fullmatch(key)):
            found.append(f"key {key}")
    # The driver's own, too, would be taken for a worker's; redis-py 5 closes some of them only as garbage.
    lane.connection.connection_pool.disconnect()
    gc.collect()
    own = lane.connection.client_id()

    def strangers() -> list[str]:
        return [
            f"connection {each['name'] or each['addr']} {each['cmd']}"
            for each in lane.connection.client_list()
            if int(each["id"]) != own and lane.is_workers(each)
        ]

    try:
        wait_until(lambda: not strangers(), 2)
    except NeverHappened:
        found += strangers()
    return found
