"""The worlds that are explored: small ones to their last state, large ones by random walks."""

from __future__ import annotations

from dataclasses import replace

from rq.job import Retry

from tests.model.actors import (
    enqueuer,
    graceful_worker,
    maintenance,
    previous_worker,
    reaper,
    scheduler,
    scrape,
    stock_worker,
    user,
)
from tests.model.engine import EPOCH
from tests.model.explorer import Part, Plan

ONE = ("default",)
TWO = ("default", "low")
AWAY = "elsewhere"


def worker(name: str, pid: int, jobs: int = 1, machine: str = "here", queues: tuple[str, ...] = ONE) -> Part:
    """A graceful worker."""
    return Part(name, graceful_worker, (name, pid, queues, jobs), machine)


def watching(name: str = "reaper", pid: int = 9, machine: str = "here") -> Part:
    """A graceful worker that only looks after others, and is not killed."""
    return Part(name, reaper, (name, pid, ONE), machine, mortal=False)


SMALL = (
    Plan("alone", "a worker or its horse is killed at any instant", (worker("w1", 1),), budget={"die": 1}),
    Plan(
        "two kills",
        "worker and horse are killed at any two instants",
        (worker("w1", 1),),
        budget={"die": 2},
    ),
    Plan(
        "stopped",
        "a worker gets SIGTERM at any instant, and may be killed besides",
        (worker("w1", 1, jobs=2),),
        jobs=("a", "b"),
        signalled=("w1",),
        budget={"die": 1},
    ),
    Plan(
        "bad network",
        "any one command is not sent, sent twice, or its reply is lost, while a worker is stopped",
        (worker("w1", 1, jobs=2),),
        signalled=("w1",),
        budget={"network": 1},
    ),
    Plan(
        "handed over",
        "a worker is killed while another starts and looks after it",
        (worker("w1", 1), worker("w2", 2)),
        budget={"die": 1},
        switches=2,
    ),
    Plan(
        "no database",
        "a worker's report cannot be archived, and the worker may be killed",
        (worker("w1", 1),),
        budget={"database": 1, "die": 1},
    ),
    Plan(
        "idle",
        "a worker starts and ends without a job, while any one command gets lost, and may be killed",
        (worker("w1", 1),),
        jobs=(),
        budget={"network": 1, "die": 1},
    ),
    Plan(
        "late horse",
        "a worker is killed right after it has forked a horse, which goes on while another worker starts",
        (worker("w1", 1), worker("w2", 2)),
        until="script claim",
        then=("w1",),
        switches=3,
    ),
    Plan(
        "lost requeue",
        "a worker interrupts its job while any one command gets lost, and another worker starts",
        (worker("w1", 1), worker("w2", 2)),
        until="job a",
        signalled=("w1",),
        budget={"network": 1},
        switches=1,
    ),
    Plan(
        "once too often",
        "worker and horse were killed with a job that has been interrupted often enough; its reaper may be killed too",
        (worker("w1", 1), worker("w2", 2)),
        until="job a",
        then=("w1", "w1/horse"),
        counted=3,
        budget={"die": 1},
    ),
    Plan(
        "stopped too often",
        "a worker has to interrupt a job that has been interrupted often enough, and may be killed",
        (worker("w1", 1),),
        until="job a",
        signalled=("w1",),
        counted=3,
        budget={"die": 1},
    ),
    *(
        Plan(
            name,
            f"a job that has been interrupted {counted} times, {progressed} of them before it last got on, is killed",
            (worker("w1", 1),),
            until="job a",
            signalled=("w1",),
            counted=counted,
            progressed=progressed,
            budget={"die": 1},
        )
        for name, counted, progressed in (("got on in between", 5, 4), ("progress of nobody", 3, 9))
    ),
    *(
        Plan(
            f"{what} by a user",
            f"somebody asks to {what} the job in flight, while its worker is stopped or killed",
            (worker("w1", 1), Part("user", user, (6, "a", what), mortal=False)),
            until="script claim",
            signalled=("w1",),
            budget={"die": 1},
        )
        for what in ("delete", "cancel", "stop")
    ),
    Plan(
        "seen in between",
        "a worker was killed with a job that it had only taken; maintenance sees that, then a worker starts",
        (
            worker("w1", 1),
            Part("maintenance", maintenance, (8, "default", 1), mortal=False),
            worker("w2", 2),
        ),
        until="HGETALL rq:job:a",
        then=("w1",),
        budget={"time": 3},
        switches=1,
    ),
    Plan(
        "seen before",
        "maintenance saw a job in the intermediate queue two minutes ago; it went back, and is taken again",
        (worker("w1", 1), Part("maintenance", maintenance, (8, "default", 1), mortal=False)),
        left={"rq:queue:default:intermediate:first_seen:a": str(float(EPOCH - 120))},
        switches=1,
    ),
    Plan(
        "rolling deploy",
        "a worker of the version before does a job and may be killed, and one of this version starts",
        (Part("old", previous_worker, ("old", 1, "default", "here", 1)), worker("w2", 2)),
        budget={"die": 1},
        switches=1,
    ),
    Plan(
        "stock beside",
        "RQ's own worker works beside ours, which may be killed",
        (worker("w1", 1), Part("stock", stock_worker, ("stock", 5, ONE, 1), mortal=False)),
        jobs=("a", "b"),
        budget={"die": 1},
        switches=1,
    ),
    Plan(
        "retry",
        "a job raises an error and has a retry, which RQ's scheduler brings back, while its worker may be killed",
        (worker("w1", 1), Part("scheduler", scheduler, (4, "default"), mortal=False)),
        options={"retry": Retry(max=1, interval=10)},
        budget={"raises": 1, "die": 1, "time": 1},
        switches=1,
    ),
    Plan(
        "retry, cut short",
        "a job raises an error and has a retry; its horse and its worker are killed at any two instants of that",
        (worker("w1", 1),),
        until="job a",
        options={"retry": Retry(max=1, interval=10)},
        budget={"raises": 1, "die": 2},
    ),
    Plan(
        "enqueued meanwhile",
        "a second job is enqueued while a worker does the first, and may be killed",
        (worker("w1", 1, jobs=2), Part("enqueuer", enqueuer, (3, "default", "b"), mortal=False)),
        budget={"die": 1},
        switches=2,
    ),
    Plan(
        "cut off",
        "a worker elsewhere is cut off for more than a minute, is found overdue, and comes back",
        (worker("w1", 1, machine=AWAY), watching()),
        until="job a",
        budget={"time": 4},
        switches=2,
    ),
    Plan(
        "away and dead",
        "worker and horse were killed on another machine; the reaper waits until they are overdue",
        (worker("w1", 1, machine=AWAY), watching()),
        until="job a",
        then=("w1", "w1/horse"),
        budget={"time": 4},
    ),
    Plan(
        "outage",
        "worker and horse were killed in the middle of the job; time goes by, a scrape comes, a worker starts",
        (
            worker("w1", 1),
            worker("w2", 2),
            Part("scrape", scrape, (7, "default", 1), mortal=False),
        ),
        until="job a",
        then=("w1", "w1/horse"),
        budget={"time": 5},
        switches=1,
    ),
    Plan(
        "outage, then maintenance",
        "worker and horse were killed in the middle of the job; time goes by, a stock worker's maintenance comes",
        (
            worker("w1", 1),
            Part("maintenance", maintenance, (8, "default", 2), mortal=False),
        ),
        until="job a",
        then=("w1", "w1/horse"),
        budget={"time": 5},
        switches=0,
    ),
)
LARGE: tuple[Plan, ...] = ()

QUICK_NAMES = ("alone", "idle", "late horse", "once too often", "stopped too often", "seen before", "no database")
QUICK = tuple(plan for plan in SMALL if plan.name in QUICK_NAMES)
"""Those of a second or two each: they are part of ``make test``."""
CUT = tuple(plan for plan in SMALL if plan.name in ("alone", "stopped too often"))
"""Where the calls come from that are done again with something hostile in their way."""


def walked(plan: Plan) -> Plan:
    """A world without limits, for a random walk: more of everything that can go wrong, and every change of actors."""
    budget = {"die": 2, "network": 2, "time": 6, "database": 1, **plan.budget}
    return replace(plan, budget=budget, switches=None)
