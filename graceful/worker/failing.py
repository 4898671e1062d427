"""Failing a job for its interruption, for good: failure callback, exception handlers, registry, and no retry.

A retry would start at once what must not be started again for a shutdown, and one that was interrupted too often would
be interrupted again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.timeouts import TimerDeathPenalty
from rq.worker import BaseWorker

from graceful.exceptions import GracefulError, StoppedByShutdown, TooManyInterruptions
from graceful.worker import rq_private

log = logging.getLogger("graceful.worker")
CALLBACK_SECONDS = 2
"""How long a failure callback may take here: the worker is coming to its end."""
OVER = frozenset({JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED})


def fail(
    worker: BaseWorker, job: Job, queue: Queue, execution: Execution | None, interruptions: int, *, by_policy: bool
) -> bool:
    """Fail a job that was taken out of its queue for good.

    Args:
        worker: the worker that does it.
        job: the job.
        queue: its queue.
        execution: its execution, if it got that far.
        interruptions: how often shutdowns have interrupted it.
        by_policy: it wants to be failed when it is interrupted; otherwise it was interrupted too often.

    Returns:
        whether it had to be failed: it may have come to its end by itself.
    """
    if job.get_status(refresh=True) in OVER:
        return False
    error: GracefulError = TooManyInterruptions(f"interrupted by {interruptions} shutdowns, the last one included")
    if by_policy:
        error = StoppedByShutdown("interrupted by the shutdown of its worker; it is not to be started again for that")
    exc_info = (type(error), error, None)
    try:
        rq_private.failure_callback(job, _penalty(worker), *exc_info)
    except Exception:
        log.exception("The failure callback of job %s failed", job.id)
    worker.handle_exception(job, *exc_info)
    if job.retries_left:
        job.retries_left = 0  # As of any job that has failed for good; handle_job_failure would retry (should_retry).
    rq_private.fail(worker, job, queue, f"{type(error).__name__}: {error}", execution)
    return True


def function(job: Job) -> Callable[..., Any] | None:
    """The job's function, or None where it cannot be had."""
    try:
        found: Callable[..., Any] | None = job.func
    except Exception:
        return None
    return found


def _penalty(worker: BaseWorker) -> type:
    """The worker's death penalty, cut to what a shutdown can spare; alarms are for the main thread only."""
    main = threading.current_thread() is threading.main_thread()
    base: Any = worker.death_penalty_class if main else TimerDeathPenalty

    class Short(base):  # type: ignore[misc]
        def __init__(self, timeout: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(min(timeout, CALLBACK_SECONDS) if timeout > 0 else CALLBACK_SECONDS, *args, **kwargs)

    return Short
