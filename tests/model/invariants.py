"""What must hold, each with a name. ``ALWAYS`` in every state, ``AT_THE_END`` when minutes went by and a worker ran.

A world keeps books besides Redis (``World.facts``): which process runs which job, how each run ended, which worker_ids
there were. Redis must agree with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graceful.core import report_json
from graceful.core.phases import JobOutcome, Outcome
from graceful.worker.queue.requeue import POISON_KEY
from tests.model import code_under_test
from tests.model.engine import Keys, World

if TYPE_CHECKING:
    from tests.model.explorer import Plan

Broken = Iterator[str]
REGISTRIES = ("finished", "failed", "deferred", "scheduled", "canceled", "ready")
MAX_INTERRUPTIONS = 3
MAY_STAY = (
    "graceful:resumed",  # Until maintenance or a page has moved it to the archived reports; it expires.
    "rq:job:",
    "rq:queues",
    "rq:finished:",
    "rq:failed:",
    "rq:canceled:",
    "rq:results:",
    "rq:clean_registries:",
    "rq:groups",
    "rq:scheduler",
)
"""What RQ leaves of jobs that are over, and its locks, which expire."""


def _content(keys: Keys, name: str, otherwise: Any) -> Any:
    key = keys.view.get(name)
    return otherwise if key is None else key.content


def _job(keys: Keys, job_id: str) -> dict[str, str]:
    found: dict[str, str] = _content(keys, f"rq:job:{job_id}", {})
    return found


def places(keys: Keys, plan: Plan, job_id: str) -> list[str]:
    """Where Redis has a job; being fetched and being started are one place, "in flight".

    What stands in the intermediate queue of a job that is over is cleared away by its worker, as a step of its own.
    """
    found = []
    open_yet = _job(keys, job_id).get("status") in ("queued", "started")
    flying = False
    for queue in plan.queues:
        found += [f"queue {queue}"] * _content(keys, f"rq:queue:{queue}", ()).count(job_id)
        flying |= open_yet and job_id in _content(keys, f"rq:queue:{queue}:intermediate", ())
        flying |= any(each.rpartition(":")[0] == job_id for each in _content(keys, f"rq:wip:{queue}", {}))
        found += [f"{name} {queue}" for name in REGISTRIES if job_id in _content(keys, f"rq:{name}:{queue}", {})]
    # One that is to fail for its interruptions is in no list while that is done, and held.
    held = _content(keys, "graceful:holders", {}).get(job_id)
    flying |= held is not None and _job(keys, job_id).get("graceful_interrupted_in") == held and not found
    if len(found) + flying > 1 and f"canceled {plan.queues[0]}" in found:
        found.remove(f"canceled {plan.queues[0]}")  # RQ cancels a job in flight without taking it from its worker.
    return found + ["in flight"] * flying


def _jobs(world: World, keys: Keys, plan: Plan) -> list[str]:
    """The jobs that exist, and that nobody has deleted."""
    names = [name.removeprefix("rq:job:") for name in keys.view if name.startswith("rq:job:")]
    return [each for each in names if ":" not in each and world.facts.get(("asked", each)) != "delete"]


def _overdue(world: World, worker_id: str) -> bool:
    """Whether a worker was cut off on another machine for so long that it counts as dead; see the README's limits."""
    return ("cut off for long", worker_id) in world.facts


def _split(world: World, job_id: str) -> bool:
    """Whether a job was begun by a worker that counts as dead and is not: it may run on both sides."""
    return any(_overdue(world, worker_id) for worker_id in world.find("begun").get(job_id, ()))


def one_place(world: World, keys: Keys, plan: Plan) -> Broken:
    """Every job is in exactly one place: its queue, in flight, or one registry."""
    stock = any(name.startswith("stock") for name in world.actors)
    for job_id in _jobs(world, keys, plan):
        found = places(keys, plan, job_id)
        if (len(found) > 1 or not (found or stock)) and not _split(world, job_id):
            yield f"{job_id} is in {found or 'no place'}"


def one_live_holder(world: World, keys: Keys, plan: Plan) -> Broken:
    """No job runs in two processes at once, unless one of them was cut off and counted as dead."""
    for job_id, runs in world.find("running").items():
        certain = [run for run in runs if not _overdue(world, run[1])]
        if len(certain) > 1:
            yield f"{job_id} runs in {certain}"


def started_by_its_holder(world: World, keys: Keys, plan: Plan) -> Broken:
    """What a graceful worker's horse runs is held by that worker, from the job's first instruction to its last."""
    holders = _content(keys, "graceful:holders", {})
    for job_id, runs in world.find("running").items():
        for _, worker_id in runs:
            if (
                ("worker id", worker_id) in world.facts
                and holders.get(job_id) != worker_id
                and not _overdue(world, worker_id)
            ):
                yield f"{job_id} runs for {worker_id}, and {holders.get(job_id)} holds it"


def counted_once(world: World, keys: Keys, plan: Plan) -> Broken:
    """A worker that is interrupted or killed over a job counts once in the job, and no other worker counts."""
    for job_id in _jobs(world, keys, plan):
        count = int(_job(keys, job_id).get(code_under_test.INTERRUPTIONS_FIELD, 0))
        worker_ids = {worker_id for worker_id, _ in world.find("ends").get(job_id, ())} | set(
            world.find("begun").get(job_id, ())
        )
        finished = {worker_id for worker_id, how in world.find("ends").get(job_id, ()) if how == "finished"}
        # A worker that could not store the end of a crashed run may do the job again: each run of its own counts.
        begun = world.find("begun").get(job_id, ())
        runs = sum(max(1, begun.count(each)) for each in worker_ids)
        most = runs - (1 if "finished" in _job(keys, job_id).get("status", "") and finished else 0)
        if count - plan.counted > most:
            yield f"{job_id} counts {count} interruptions, and {most} runs can have been interrupted over it"


def failed_by_own_doing(world: World, keys: Keys, plan: Plan) -> Broken:
    """A job fails for an error of its own, for a crash of its process, or for too many interruptions; else never.

    RQ takes a Redis that cannot be reached from the job's process for an error of the job, and so do we.
    """
    for job_id in _jobs(world, keys, plan):
        hash_of = _job(keys, job_id)
        if hash_of.get("status") != "failed" or _may_fail(world, plan, job_id):
            continue
        if not _too_often(keys, job_id):
            yield f"{job_id} has failed"


def _may_fail(world: World, plan: Plan, job_id: str) -> bool:
    raised = any(how == "raised" for _, how in world.find("ends").get(job_id, ()))
    crashed = ("crashed", job_id) in world.facts
    crashed |= ("cut off", job_id) in world.facts
    return raised or crashed or ("asked", job_id) in world.facts or "failed" in plan.may


def queued_jobs_stay(world: World, keys: Keys, plan: Plan) -> Broken:
    """A job that waits in its queue is nobody's, does not expire there, and is queued by its status too."""
    for job_id in _jobs(world, keys, plan):
        if _split(world, job_id) or not any(each.startswith("queue ") for each in places(keys, plan, job_id)):
            continue
        if job_id in _content(keys, "graceful:holders", {}):
            yield f"{job_id} is in its queue, and {_content(keys, 'graceful:holders', {})[job_id]} holds it"
        for name, key in keys.view.items():
            # Fetch writes a time in the far future there, so that RQ's maintenance leaves a held job alone.
            if name.endswith(f":intermediate:first_seen:{job_id}") and float(key.content) > world.clock + 60:
                yield f"{job_id} is in its queue, and RQ's maintenance is kept from it"
        if keys.view[f"rq:job:{job_id}"].ttl is not None and "ttl" not in plan.options:
            yield f"{job_id} expires in its queue"
        if _job(keys, job_id).get("status") != "queued":
            yield f"{job_id} is in its queue as {_job(keys, job_id).get('status')!r}"
        if _job(keys, job_id).get("worker_name"):
            yield f"{job_id} is in its queue as that of worker {_job(keys, job_id)['worker_name']}"


def back_at_the_front(world: World, keys: Keys, plan: Plan) -> Broken:
    """A job that was begun stands before those that were not."""
    for queue in plan.queues:
        ids = _content(keys, f"rq:queue:{queue}", ())
        begun = [bool(world.find("begun").get(each)) and ("asked", each) not in world.facts for each in ids]
        if begun != sorted(begun, reverse=True):
            yield f"{ids} in {queue}, of which were begun: {begun}"


def the_dead_do_not_beat(world: World, keys: Keys, plan: Plan) -> Broken:
    """What is known of a worker is known as a whole: registration, beat and machine come and go together."""
    workers = set(_content(keys, "graceful:workers", {}))
    beats = set(_content(keys, "graceful:beats", {}))
    machines = {
        worker_id for name, key in keys.view.items() if name.startswith("graceful:on:") for worker_id in key.content
    }
    if not workers == beats == machines:
        yield f"registered {sorted(workers)}, heard of {sorted(beats)}, on a machine {sorted(machines)}"
    yield from (f"{name} never expires" for name, key in keys.view.items() if _is_machine(name) and key.ttl is None)


def _is_machine(name: str) -> bool:
    return name.startswith("graceful:on:")


def the_living_are_listed(world: World, keys: Keys, plan: Plan) -> Broken:
    """A worker that lives and has registered is in RQ's list of workers, whoever else was removed from it."""
    for worker_id, pid in world.find("worker id").items():
        key = f"rq:worker:{worker_id.partition('.')[0]}"
        registered = "birth" in _content(keys, key, {}) and "death" not in _content(keys, key, {})
        if (
            registered
            and world.alive(pid)
            and not _overdue(world, worker_id)
            and key not in _content(keys, "rq:workers", ())
        ):
            yield f"{key} is registered and alive, and in no list"


def given_up_in_time(world: World, keys: Keys, plan: Plan) -> Broken:
    """A job that was interrupted too often without getting on is not queued once more."""
    for job_id in _jobs(world, keys, plan):
        if _too_often(keys, job_id) and any(each.startswith("queue ") for each in places(keys, plan, job_id)):
            yield f"{job_id} is queued again, after {_job(keys, job_id)[code_under_test.INTERRUPTIONS_FIELD]}"


def _too_often(keys: Keys, job_id: str) -> bool:
    """Whether a job has more interruptions behind it than it may have since it last got on."""
    count = int(_job(keys, job_id).get(code_under_test.INTERRUPTIONS_FIELD, 0))
    before = int(_job(keys, job_id).get(f"{code_under_test.INTERRUPTIONS_FIELD}_before_progress", 0))
    return count - (before if before <= count else 0) > MAX_INTERRUPTIONS


def only_known_fields(world: World, keys: Keys, plan: Plan) -> Broken:
    """No job has a field without a name, and what is held of a job tells of no horse but its own."""
    for job_id in _jobs(world, keys, plan):
        if "" in _job(keys, job_id):
            yield f"{job_id} has a field without a name"
    for name, key in keys.view.items():
        worker = name.removeprefix("graceful:held:").partition(".")[0]
        other = world.facts.get(("at", worker)) != (key.content.get("job") if key.kind == "hash" else None)
        if name.startswith("graceful:held:") and other and set(key.content) - {"fetch", "queue", "job"}:
            yield f"{name} tells of another job's horse: {key.content}"


def held_both_ways(world: World, keys: Keys, plan: Plan) -> Broken:
    """What is held has a holder that is known of: each entry of ``graceful:holders`` is held by that worker."""
    for job_id, worker_id in _content(keys, "graceful:holders", {}).items():
        if _content(keys, f"graceful:held:{worker_id}", {}).get("job") != job_id:
            yield f"{worker_id} holds {job_id}, and does not know of it"


def rq_gives_no_job_up(world: World, keys: Keys, plan: Plan) -> Broken:
    """RQ's maintenance does not take a job that a live worker has just taken for one that is stuck.

    It fails what it has seen in the intermediate queue more than a minute ago (``IntermediateQueue.cleanup``).
    """
    for queue in plan.queues:
        for job_id in _content(keys, f"rq:queue:{queue}:intermediate", ()):
            worker_id = _content(keys, "graceful:holders", {}).get(job_id, "")
            seen = float(_content(keys, f"rq:queue:{queue}:intermediate:first_seen:{job_id}", world.clock))
            beat = world.facts.get(("beaten", worker_id.partition(".")[0]), 0)
            if world.clock - seen > 60 and world.clock - beat < 60:
                yield f"{job_id} was taken by {worker_id}, and RQ has first seen it {world.clock - seen:.0f} s ago"


def executions_agree(world: World, keys: Keys, plan: Plan) -> Broken:
    """Each execution that is kept, and each that a worker lists, is one that the started registry knows of."""
    started = {entry for queue in plan.queues for entry in _content(keys, f"rq:wip:{queue}", {})}
    for name, key in keys.view.items():
        kept = {name.removeprefix("rq:execution:")} if name.startswith("rq:execution:") else set()
        if name.startswith("rq:worker:") and name.endswith(":executions"):
            kept = set(key.content)
        for entry in kept - started:
            job_id = entry.rpartition(":")[0]
            # RQ's last heartbeat may come after the job's end, and makes the execution of a job that is over anew.
            open_yet = _job(keys, job_id).get("status") in ("queued", "started")
            if open_yet and not _split(world, job_id) and not _may_fail(world, plan, job_id):
                yield f"{name} tells of {entry}, and the started registry has {sorted(started)}"


ALWAYS = (
    one_place,
    one_live_holder,
    started_by_its_holder,
    counted_once,
    failed_by_own_doing,
    queued_jobs_stay,
    back_at_the_front,
    the_dead_do_not_beat,
    the_living_are_listed,
    given_up_in_time,
    only_known_fields,
    held_both_ways,
    executions_agree,
    rq_gives_no_job_up,
)


def no_job_lost(world: World, keys: Keys, plan: Plan) -> Broken:
    """Every job is finished, but one that failed by its own doing or that a user has taken away."""
    for job_id in {*plan.jobs, *_jobs(world, keys, plan)}:
        if ("asked", job_id) in world.facts or _may_fail(world, plan, job_id):
            continue
        status = _job(keys, job_id).get("status")
        if status != "finished" and not (status == "failed" and _too_often(keys, job_id)):
            yield f"{job_id} is {status or 'gone'}, in {places(keys, plan, job_id)}"


def interruptions_count(world: World, keys: Keys, plan: Plan) -> Broken:
    """Each worker that was interrupted or killed while the job's code ran is counted."""
    for job_id in _jobs(world, keys, plan):
        if ("asked", job_id) in world.facts or ("crashed", job_id) in world.facts:
            continue
        worker_ids = {
            worker_id
            for worker_id, how in world.find("ends").get(job_id, ())
            if how in ("interrupted", "killed") and ("worker id", worker_id) in world.facts
        }
        count = int(_job(keys, job_id).get(code_under_test.INTERRUPTIONS_FIELD, 0))
        if count - plan.counted < len(worker_ids):
            yield f"{job_id} counts {count}, and was interrupted in {sorted(worker_ids)}"


def one_report(world: World, keys: Keys, plan: Plan) -> Broken:
    """Every worker ends in exactly one report: sealed, in the archive, and nowhere else."""
    for worker_id in world.find("worker id"):
        text = world.facts.get(("archived", worker_id))
        if text is None:
            # A worker that Redis never heard of has died before it took anything.
            if ("opened", worker_id) in world.facts:
                yield f"{worker_id} has no report"
        elif not report_json.load(text).sealed:
            yield f"the report of {worker_id} is not sealed"
    waiting = [*_content(keys, code_under_test.JOURNAL_KEY, {}), *world.find("spooled")]
    if waiting:
        yield f"reports of {waiting} wait for an archive"


def reports_are_true(world: World, keys: Keys, plan: Plan) -> Broken:
    """A report says "killed" of those that were, and names the job that its worker was killed or interrupted over.

    Not where somebody else has put the job back before: its own orphaned horse, or a reaper that was killed over it.
    """
    killed = [worker_id for worker_id, pid in world.find("worker id").items() if world.facts.get(("status", pid)) == 9]
    for worker_id, pid in world.find("worker id").items():
        text = world.facts.get(("archived", worker_id))
        if text is None:
            continue
        report = report_json.load(text)
        if (
            report.outcome is Outcome.KILLED
            and world.facts.get(("status", pid)) == 0
            and not _overdue(world, worker_id)
        ):
            yield f"{worker_id} ended well, and its report says that it was killed"
        named = {job.id: job.outcome for job in report.jobs.in_flight}
        for job_id, ends in world.find("ends").items():
            if _too_often(keys, job_id):
                continue  # It has failed for it, before the report was written.
            hows = [how for owner, how in ends if owner == worker_id]
            stopped = "killed" in hows or ("interrupted" in hows and worker_id not in killed)
            excused = len(killed) > 1 or ("asked", job_id) in world.facts or ("crashed", job_id) in world.facts
            if stopped and job_id not in named and not excused:
                yield f"{worker_id} was stopped over {job_id}, which its report does not name"
        # What became of a job that a user has deleted in the meantime cannot be known.
        if any(named[each] is JobOutcome.UNKNOWN and ("asked", each) not in world.facts for each in named):
            yield f"the report of {worker_id} does not know what became of its job"


def _failed(keys: Keys, job_id: str) -> bool:
    job = keys.view.get(f"rq:job:{job_id}")
    return job is not None and job.content.get("status") == "failed"


def nothing_left(world: World, keys: Keys, plan: Plan) -> Broken:
    """Nothing is left of those that are gone: no key of ours, no execution, no entry in RQ's lists of workers."""
    yield from world.facts.get(("ghosts",), ())
    cut = ("lost a command",) in world.facts or 9 in world.find("status").values()
    for name, key in keys.view.items():
        if name.startswith("rq:worker:") and key.ttl is not None:
            continue  # RQ's own, which expire.
        if ":first_seen:" in name and key.ttl is not None and float(key.content) <= world.clock + 60:
            continue  # RQ's own, which expires; ours is of the far future, and goes with what was held.
        if name.startswith("rq:execution:") and key.ttl is not None and set(key.content) == {"last_heartbeat"} and cut:
            continue  # RQ's last heartbeat came after the job's end, and its worker could not remove it; it expires.
        if name == POISON_KEY and all(_failed(keys, job_id) for job_id in key.content):
            continue  # The list of jobs that were interrupted too often.
        if not name.startswith(MAY_STAY) and not (name.startswith("rq:queue:") and name.count(":") == 2):
            yield f"{name} = {json.dumps(key.content, default=sorted)[:200]}"


AT_THE_END = (no_job_lost, interruptions_count, one_report, reports_are_true, nothing_left)


def always(world: World, keys: Keys, plan: Plan) -> Iterator[tuple[str, str]]:
    """Which of :data:`ALWAYS` are broken, and how."""
    for invariant in ALWAYS:
        for detail in invariant(world, keys, plan):
            yield invariant.__name__, detail


def at_the_end(world: World, keys: Keys, plan: Plan) -> Iterator[tuple[str, str]]:
    """Which of :data:`AT_THE_END` are broken, and how."""
    for invariant in AT_THE_END:
        for detail in invariant(world, keys, plan):
            yield invariant.__name__, detail
