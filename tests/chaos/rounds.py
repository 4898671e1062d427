"""Plays one round, and balances the books from outside."""

from __future__ import annotations

import gc
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import rq
from rq import Queue

from tests.chaos import jobs as chaos_jobs
from tests.chaos.faults import FAULTS, SETTINGS, TIMEOUT, Fault, Scene
from tests.chaos.lane import Lane, Worker
from tests.chaos.ledger import starts
from tests.chaos.plan import QUEUES, Round
from tests.support.books import balance
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
SUCCESSOR_SECONDS = 20.0
UNHURRIED = {**SETTINGS, "GRACEFUL_TIMEOUT": 15.0, "GRACEFUL_HOOKS_TIMEOUT": 10.0}
"""Of the successor: it shows what is left over, and not how quick it is."""
MAY_STAY = re.compile(
    r"rq:job:[^:]+(:execution:.*|:executions|:dependents)?|rq:results:.*|rq:queues?(:[a-z]+)?|rq:(finished|failed):[a-z]+"
    # RQ's maintenance notes when it first saw a job in the intermediate queue, and forgets it after a day.
    r"|rq:queue:[a-z]+:intermediate:first_seen:.*"
    # RQ keeps the hash of a worker that has ended for a minute, and these two as locks of its maintenance.
    r"|rq:worker:[^:]+|rq:clean_groups|rq:clean_registries:[a-z]+"
    # RQ 2.x writes nothing into a scheduler's lock from which one could tell whose it is.
    + (r"|rq:scheduler-lock:[a-z]+" if int(rq.VERSION.partition(".")[0]) < 3 else "")
)
QUEUE = re.compile(r"rq:queue:[a-z]+")
MAY_EXPIRE = ("rq:worker:", "rq:clean_", "rq:scheduler-lock:", "rq:queue:")


@dataclass
class Outcome:
    """What came of a round."""

    round: Round
    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reports_missing: list[str] = field(default_factory=list)
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
    outcome.jobs = len(ids)
    settings = {**SETTINGS, **(fault.settings(rng) if fault.settings else {})}
    workers = [
        lane.start_worker(
            plan.queues,
            plan.mode,
            stock=stock,
            url=lane.proxy.url if fault.proxied else "",
            settings=settings,
            bent_clock=plan.fault == "clock_back",
            piped=plan.fault == "disk_full",
        )
    ]
    if plan.rival:
        workers.append(lane.start_worker(plan.queues, plan.mode, stock=stock, settings=SETTINGS))
    scene = Scene(lane, plan, workers[0], rng)
    try:
        _wait_for_work(lane, scene.worker)
        for each in workers:
            _wait_for_registration(lane, each)
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
        _wait_for_horses(workers, outcome, stock)
        name = workers[0].name if plan.same_name and not stock else ""
        successor = lane.start_worker(QUEUES, "burst", stock=stock, settings=UNHURRIED, name=name)
        workers.append(successor)
        if not successor.ended.wait(SUCCESSOR_SECONDS):
            outcome.left_over.append(f"the successor did not end: {successor!r}")
            successor.signal_session(signal.SIGKILL)
            successor.ended.wait(5)
        elif successor.code:
            outcome.left_over.append(f"the successor: {successor!r}")
        _balance(lane, ids, fault, workers, outcome, stock)
    finally:
        outcome.logs = "\n".join(f"--- {worker!r}\n{worker.output}" for worker in workers)
        outcome.seconds = time.monotonic() - began
    return outcome


def _enqueue(lane: Lane, kind: str, seconds: float, queue: str) -> str:
    job = Queue(queue, connection=lane.connection).enqueue(chaos_jobs.JOBS[kind], seconds, job_timeout=60)
    return str(job.id)


def _wait_for_work(lane: Lane, worker: Worker) -> None:
    """Wait until the worker is at its first job, so that the fault does not come before there is anything to break."""
    wait_until(lambda: worker.ended.is_set() or lane.ledger.lines(), 20, lambda: f"a job: {worker.output}")


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


def _wait_for_horses(workers: list[Worker], outcome: Outcome, stock: bool) -> None:
    """Horses learn of their worker's death by themselves; those of the stock worker go on to the end of their job."""
    for worker in workers:
        try:
            wait_until(lambda pid=worker.pid: not pids_in_session(pid), 5, interval=0.005)  # type: ignore[misc]
        except NeverHappened:
            if not stock:
                outcome.left_over.append(f"processes {pids_in_session(worker.pid)} of {worker!r}")
            worker.signal_session(signal.SIGKILL)


def _balance(lane: Lane, ids: list[str], fault: Fault, workers: list[Worker], outcome: Outcome, stock: bool) -> None:
    books = balance(lane.connection, ids, QUEUES)
    lines = lane.ledger.lines()
    for job_id, places in books.places.items():
        kinds = {place.partition(":")[0] for place in places}
        if not kinds & {"queue", "finished", "failed"}:
            outcome.lost.append(f"{job_id} is in {'+'.join(places) or 'no place'}")
        elif len(places) > 1:
            outcome.doubled.append(f"{job_id} is in {'+'.join(places)}")
        elif "failed" in kinds and not fault.may_fail:
            outcome.failed.append(job_id)
    outcome.doubled += [f"{line.job} ran twice at once" for line in lines if line.what == "twice"]
    if not fault.may_repeat:
        ended = [line.job for line in lines if line.what == "end"]
        # A job that came to its end and whose result was not stored yet when its horse was killed runs again.
        again = {job for job in ended if ended.count(job) > 1}
        outcome.doubled += [f"{job} was done twice" for job in sorted(again) if _needlessly(job, fault)]
    for job, times in starts(lines).items():
        if job not in ids:
            outcome.doubled.append(f"{job} is no job of this round, and ran {times} times")
    if stock:
        return
    reports = list(lane.reports().values())
    for worker in workers:
        found = [place for pid, place in reports if pid == worker.pid]
        if len(found) != 1:
            outcome.reports_missing.append(f"{worker!r} has {len(found)} reports {found}")
    strangers = [pid for pid, _ in reports if pid not in [worker.pid for worker in workers]]
    if strangers:
        outcome.reports_missing.append(f"reports of nobody: {strangers}")
    outcome.left_over += _left_over(lane)


def _needlessly(job: str, fault: Fault) -> bool:
    return not (fault.may_fail or fault.name.startswith("kill") or fault.name == "freeze")


def _left_over(lane: Lane) -> list[str]:
    found = []
    for key in sorted(key.decode() for key in lane.connection.keys("*")):
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
            if int(each["id"]) != own
        ]

    try:
        wait_until(lambda: not strangers(), 2)
    except NeverHappened:
        found += strangers()
    return found
