"""RQ's scheduler, the child of ``--with-scheduler``: known to successors, stopped with a bound."""

from __future__ import annotations

import logging
from dataclasses import replace

from redis.exceptions import RedisError
from rq.worker import BaseWorker

from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.compat import rq_private

log = logging.getLogger("graceful.worker")
LONGEST_SECONDS = 2.0
KILLED_SECONDS = 0.2
"""How long a scheduler that was killed may take to be gone."""


def register(worker: BaseWorker, heartbeat: Heartbeat) -> None:
    """Let successors know which locks are those of our scheduler; nothing to do where there is none."""
    name = rq_private.scheduler_name(worker)
    if name and name != heartbeat.registration.scheduler:
        try:
            heartbeat.register(replace(heartbeat.registration, scheduler=name))
        except RedisError as error:
            log.warning("Worker %s: its scheduler is not registered, Redis is away: %s", worker.name, error)


def ask_to_stop(worker: BaseWorker) -> None:
    """Tell it to end, without waiting; nothing to do where there is none."""
    process = rq_private.scheduler_process(worker)
    if process is not None and process.is_alive():
        process.terminate()


def stop(worker: BaseWorker, seconds: float) -> None:
    """Stop it; locks of one that had to be killed are released here.

    Args:
        worker: its worker.
        seconds: how long it may take at most; RQ's ``stop_scheduler`` waits without a bound.
    """
    process = rq_private.scheduler_process(worker)
    if process is None or not process.pid:
        return
    process.terminate()
    process.join(max(0.1, min(LONGEST_SECONDS, seconds)))
    if process.exitcode != 0:
        process.kill()
        process.join(KILLED_SECONDS)
        assert worker.scheduler is not None
        worker.scheduler.release_locks()


def stopped_by_itself(worker: BaseWorker) -> bool:
    """Whether it is gone, and has taken back its locks and its entry; one that is still there is killed."""
    process = rq_private.scheduler_process(worker)
    if process is None:
        return True
    if process.is_alive():
        process.kill()
        process.join(KILLED_SECONDS)
    return bool(process.exitcode == 0)
