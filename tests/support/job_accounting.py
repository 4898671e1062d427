"""Balancing the books: where each enqueued job is, and whether one is in nobody's hands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import redis
from rq import Queue
from rq.intermediate_queue import IntermediateQueue

from tests.support.jobs import OVERLAPPED, STARTED


@dataclass(frozen=True)
class JobAccounting:
    """Where every job of a set of jobs is.

    Args:
        places: job id to the places that hold it, for instance ``("queue:default",)``.
        started: job id to how often it was started.
        overlapped: ids of jobs that ran twice at once.
    """

    places: dict[str, tuple[str, ...]]
    started: dict[str, int]
    overlapped: frozenset[str]

    def at(self, kind: str) -> list[str]:
        """Ids of the jobs in one kind of place: queue, finished, failed, started, intermediate, scheduled, ..."""
        return [job_id for job_id, places in self.places.items() if any(each.split(":")[0] == kind for each in places)]

    @property
    def lost(self) -> list[str]:
        """Ids of jobs that are in nobody's hands: in no list and in no registry."""
        return [job_id for job_id, places in self.places.items() if not places]

    @property
    def stuck(self) -> list[str]:
        """Ids of jobs that nobody works at and that no queue hands out, once no worker runs."""
        return sorted({*self.at("intermediate"), *self.at("started")} - {*self.at("queue"), *self.at("finished")})

    @property
    def doubled(self) -> list[str]:
        """Ids of jobs that are in more than one place."""
        return [job_id for job_id, places in self.places.items() if len(places) > 1]

    @property
    def run_twice(self) -> list[str]:
        """Ids of jobs that were started more than once."""
        return [job_id for job_id, times in self.started.items() if times > 1]

    def summary(self) -> str:
        counts = Counter("+".join(places) or "lost" for places in self.places.values())
        return ", ".join(f"{place} {count}" for place, count in sorted(counts.items()))

    def assert_balanced(self) -> None:
        """Every job in exactly one place that a worker or a person finds it in, and none run twice at once.

        Raises:
            AssertionError: with what is wrong; to be called when no worker runs any more.
        """
        wrong = {"lost": self.lost, "stuck": self.stuck, "in two places": self.doubled}
        wrong["run twice at once"] = sorted(self.overlapped)
        assert not any(wrong.values()), f"{ {name: ids for name, ids in wrong.items() if ids} } of {self.summary()}"


def balance(
    connection: redis.Redis, job_ids: Iterable[str], queue_names: Iterable[str] = ("default",)
) -> JobAccounting:
    """Look every job up in the queues, intermediate queues and registries of ``queue_names``."""
    places: dict[str, list[str]] = {job_id: [] for job_id in job_ids}

    def enter(place: str, ids: Iterable[str | bytes]) -> None:
        for raw in ids:
            job_id = raw.decode() if isinstance(raw, bytes) else raw
            # Since RQ 2.? the started registry holds "job id:execution id".
            job_id = job_id if job_id in places else job_id.rpartition(":")[0]
            if job_id in places:
                places[job_id].append(place)

    for name in queue_names:
        queue = Queue(name, connection=connection)
        enter(f"queue:{name}", connection.lrange(queue.key, 0, -1))
        enter(f"intermediate:{name}", connection.lrange(IntermediateQueue.get_intermediate_queue_key(queue.key), 0, -1))
        registries = {
            "started": queue.started_job_registry,
            "finished": queue.finished_job_registry,
            "failed": queue.failed_job_registry,
            "scheduled": queue.scheduled_job_registry,
            "deferred": queue.deferred_job_registry,
            "canceled": queue.canceled_job_registry,
        }
        if hasattr(queue, "ready_job_registry"):
            # Since RQ 3: dependents on their way to the queue; RQ's maintenance sees to those that did not get there.
            registries["ready"] = queue.ready_job_registry
        for kind, registry in registries.items():
            # Read as they are: get_job_ids() of RQ moves abandoned jobs on.
            enter(f"{kind}:{name}", connection.zrange(registry.key, 0, -1))
    return JobAccounting(
        places={job_id: tuple(found) for job_id, found in places.items()},
        started={key.decode(): int(count) for key, count in connection.hgetall(STARTED).items()},
        overlapped=frozenset(member.decode() for member in connection.smembers(OVERLAPPED)),
    )
