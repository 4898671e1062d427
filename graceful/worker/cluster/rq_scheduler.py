"""RQ's scheduler, the child of ``--with-scheduler``: registered for reapers, and stopped with a time limit."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError
from rq.worker import BaseWorker

from graceful.worker.cluster import log
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.compat import rq_private

logger = logging.getLogger("graceful.worker")
LONGEST_SECONDS = 2.0
KILLED_SECONDS = 0.2
"""How long a killed scheduler may take to end."""


def register(worker: BaseWorker, heartbeat: Heartbeat) -> None:
    """Register the scheduler, so that a reaper can release its locks; nothing happens if there is none."""
    name = rq_private.scheduler_name(worker)
    if name and name != heartbeat.registration.scheduler:
        try:
            heartbeat.register(heartbeat.registration._replace(scheduler=name))
        except RedisError as error:
            logger.warning(log.SCHEDULER_NOT_REGISTERED, worker.name, error)


def ask_to_stop(worker: BaseWorker) -> None:
    """Tell it to end, without waiting; nothing to do where there is none."""
    process = rq_private.scheduler_process(worker)
    if process is not None and process.is_alive():
        process.terminate()


def stop(worker: BaseWorker, seconds: float) -> None:
    """Stop it; if it has to be killed, its locks are released here.

    Args:
        worker: its worker.
        seconds: how long it may take at most; RQ's ``stop_scheduler`` waits without limit.
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
    """Whether it has ended and released its locks and entry; one that still runs is killed."""
    process = rq_private.scheduler_process(worker)
    if process is None:
        return True
    if process.is_alive():
        process.kill()
        process.join(KILLED_SECONDS)
    return bool(process.exitcode == 0)
