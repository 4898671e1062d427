"""Worker classes that die at one certain point of their run, and an exit hook that does not end."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rq.job import Job
from rq.queue import Queue

from graceful.worker import GracefulSimpleWorker, GracefulWorker
from graceful.worker.cluster import membership
from graceful.worker.queue import dequeue
from tests.support.waiting import wait_until


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledBeforeStart(GracefulWorker):  # type: ignore[misc, valid-type]
    """Is killed with a fetched job that it has not started."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        _die()


class KilledAtFork(GracefulWorker):  # type: ignore[misc, valid-type]
    """Is killed when RQ has made the execution, and there is no horse yet."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        _die()


class SimpleKilledBeforeStart(GracefulSimpleWorker):  # type: ignore[misc, valid-type]
    """As :class:`KilledBeforeStart`, of a worker that runs its jobs itself."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        _die()


class KilledSealed(GracefulWorker):  # type: ignore[misc, valid-type]
    """Is killed when its report is sealed and stored, before anything of it is taken back."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        self._session.membership.heartbeat.deregister = lambda **_: _die()
        super().bootstrap(*args, **kwargs)


class Hasty(GracefulWorker):  # type: ignore[misc, valid-type]
    """Beats, and looks after others, twice a second, and its running job as often as can be."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        self.job_monitoring_interval = 1
        membership.HEARTBEAT_SECONDS = dequeue.HEARTBEAT_SECONDS = 0.5
        super().bootstrap(*args, **kwargs)


class LateHeartbeat(Hasty):
    """Sends RQ's heartbeat of a job only when the job's execution has ended, which it waits for."""

    def maintain_heartbeats(self, job: Job, *args: Any, **kwargs: Any) -> None:
        self.connection.rpush("tests:late", job.id)
        wait_until(lambda: not self.connection.exists(f"rq:executions:{job.id}"), 10, interval=0.001)
        super().maintain_heartbeats(job, *args, **kwargs)


class HastySimple(GracefulSimpleWorker):  # type: ignore[misc, valid-type]
    """As :class:`Hasty`, of a worker that runs its jobs itself."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        membership.HEARTBEAT_SECONDS = dequeue.HEARTBEAT_SECONDS = 0.5
        super().bootstrap(*args, **kwargs)


class TellsIfStored(GracefulSimpleWorker):  # type: ignore[misc, valid-type]
    """Prints whether the end of a late job was stored before its process went, or the wait for it was in vain."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        stored = self._attendant.process._is_stored
        wait = stored.wait
        stored.wait = lambda seconds: print("was stored:", wait(seconds), flush=True)


def endless() -> None:
    """An exit hook."""
    time.sleep(60)
