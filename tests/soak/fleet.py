"""The fleet: two workers that stay (one graceful, one stock), others that every deploy replaces, and steady work."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry

from tests.chaos.lane import Lane, Worker
from tests.support.waiting import wait_until

QUEUE = "default"
ROLLED = 3
BACKLOG = 20
"""Jobs that wait at most, so that the queue itself does not grow."""
BUDGETS: dict[str, Any] = {
    "GRACEFUL_TIMEOUT": 6.0,
    "GRACEFUL_HOOKS_TIMEOUT": 2.0,
    "GRACEFUL_INTERRUPT_TIMEOUT": 1.0,
}
KEPT_SECONDS = 20
"""How long RQ keeps what is known of a finished job: short, so that it expires within the run."""


class Fleet:
    """See the module."""

    def __init__(self, lane: Lane, rng: random.Random) -> None:
        self.lane = lane
        self.rng = rng
        self.release = 0
        self.ended = 0
        self.enqueued = 0
        self.faults = {"SIGKILL": 0, "Redis restarted": 0}
        self.stock_names: list[str] = []
        self.graceful = self._start()
        self.stock = self._start(stock=True)
        self.rolled = [self._start() for _ in range(ROLLED)]
        self._over = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    @property
    def workers(self) -> list[Worker]:
        return [self.graceful, self.stock, *self.rolled]

    def deploy(self) -> None:
        """A new release: one worker after another is told to stop, and is replaced when it is gone."""
        self.release += 1
        for index, worker in enumerate(self.rolled):
            worker.signal(signal.SIGTERM)
            self._replace(index, worker)

    def kill_one(self) -> None:
        """The platform lost patience with one of them: SIGKILL, to its horse too."""
        self.faults["SIGKILL"] += 1
        index = self.rng.randrange(ROLLED)
        worker = self.rolled[index]
        worker.signal_session(signal.SIGKILL)
        self._replace(index, worker)

    def restart_redis(self) -> None:
        """It comes back with all that it held. Who had a job in flight ends with 69, and is started anew."""
        self.faults["Redis restarted"] += 1
        server = self.lane.server
        with server.client(socket_timeout=5, retry=None) as client:
            client.shutdown(save=True)
        assert server.process is not None
        server.process.wait(10)
        server.start()

    def check(self, *, redis_was_away: bool) -> None:
        """Check that those who stay are there; start those anew that Redis's restart has ended.

        Raises:
            AssertionError: one has ended for another reason.
        """
        for name in ("graceful", "stock"):
            worker: Worker = getattr(self, name)
            if worker.ended.is_set():
                assert redis_was_away, f"{worker!r} has ended:\n{worker.output[-3000:]}"
                self.ended += name == "graceful"
                setattr(self, name, self._start(stock=name == "stock"))

    def tidy(self) -> None:
        """Remove ids of expired jobs from RQ's registry, which its workers do every quarter of an hour: a saw-tooth."""
        _despite_redis(lambda: self._queue().finished_job_registry.cleanup())

    def drain(self, seconds: float) -> list[str]:
        """Enqueue nothing more, and wait until all is done; who had each job that failed, and why.

        Raises:
            NeverHappened: jobs are left.
        """
        self._over.set()
        self._feeder.join(30)
        queue = self._queue()
        wait_until(
            lambda: not queue.count and not queue.started_job_registry.count,
            seconds,
            lambda: f"{queue.count} jobs wait",
        )
        failed = FailedJobRegistry(queue=queue).get_job_ids(cleanup=False)
        return [self._failure(Job.fetch(job_id, connection=self.lane.connection)) for job_id in failed]

    def _failure(self, job: Job) -> str:
        result = job.latest_result()
        told = (result.exc_string or "").strip().split("\n") if result else ["no result"]
        # Of a traceback the error is the last line; where a shutdown has failed the job, it is the first.
        reason = told[-1] if told[0].startswith("Traceback") else told[0]
        # A stock worker whose fetch had no reply has no part in its job that could be seen.
        who = "stock" if job.worker_name in self.stock_names else "graceful" if job.worker_name else "no worker"
        return f"{who}: {reason}"

    def _start(self, *, stock: bool = False) -> Worker:
        settings = {**BUDGETS, "GRACEFUL_RELEASE": f"soak-{self.release}"}
        worker = self.lane.start_worker([QUEUE], "one queue", stock=stock, settings=settings)
        if stock:
            self.stock_names.append(worker.name)
        # Before that it may be no worker yet, but a process that has just been forked.
        wait_until(lambda: self.lane.connection.exists(f"rq:worker:{worker.name}"), 30, lambda: worker.output)
        return worker

    def _replace(self, index: int, worker: Worker) -> None:
        assert worker.ended.wait(30), f"{worker!r} does not end:\n{worker.output[-3000:]}"
        self.ended += 1
        worker.output_path.unlink(missing_ok=True)
        self.rolled[index] = self._start()

    def _queue(self) -> Queue:
        return Queue(QUEUE, connection=self.lane.connection)

    def _feed(self) -> None:
        queue = self._queue()
        kept = {"result_ttl": KEPT_SECONDS, "failure_ttl": 86400}  # Failures are few, and are told at the end.
        while not self._over.wait(0.1):
            _despite_redis(lambda: self._enqueue(queue, kept))

    def _enqueue(self, queue: Queue, kept: dict[str, int]) -> None:
        if queue.count < BACKLOG:
            # Now and then one that outlasts the grace period, and is interrupted by a deploy.
            seconds = 8.0 if self.rng.random() < 0.01 else self.rng.uniform(0.0, 0.3)
            queue.enqueue("tests.soak.jobs.work", seconds, **kept)
            self.enqueued += 1


def _despite_redis(call: Callable[[], None]) -> None:
    try:
        call()
    except redis.exceptions.RedisError:
        pass  # It is being restarted: what was not enqueued is nobody's.
