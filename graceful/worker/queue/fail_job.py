"""Fails an interrupted job for good: failure callback, exception handlers, failed registry, and no retry.

A retry would start a job again that must not be restarted by a shutdown, or one that was interrupted too often.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful.core import attempts
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.core.deadline import Deadline
from graceful.exceptions import GracefulError, PoisonJob, StoppedByShutdown, TooManyInterruptions
from graceful.jobs.on_interrupt import Policy, policy_of
from graceful.worker.compat import rq_private
from graceful.worker.compat.database import close_database_connections
from graceful.worker.horse import parent_death
from graceful.worker.queue import log
from graceful.worker.queue.requeue import ATTEMPTS_FIELD
from graceful.worker.shutdown import os_signals

logger = logging.getLogger("graceful.worker")
CALLBACK_SECONDS = 2
"""How long a failure callback may take here: the worker is shutting down."""
CHILD_SECONDS = CALLBACK_SECONDS + 0.5
POLL_SECONDS = 0.005
ANSWERS: tuple[Policy | None, ...] = (None, "requeue", "fail")
OVER = frozenset({JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED})


def fail(
    worker: Any,
    job: Job,
    queue: Queue,
    execution: Execution | None,
    interruptions: int,
    *,
    by_policy: bool,
    why: str = "",
) -> bool:
    """Fail a job for good.

    Args:
        worker: the worker that fails it.
        job: the job.
        queue: its queue.
        execution: its execution, if it has one.
        interruptions: how often shutdowns have interrupted it.
        by_policy: its policy is to fail when interrupted; otherwise it was interrupted too often.
        why: why its horse could not start, if that counted as the last interruption.

    Returns:
        whether it was failed: it may have ended by itself.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable; it can be done again.
    """
    if job.get_status(refresh=True) in OVER:
        return False
    error: GracefulError = StoppedByShutdown(
        "interrupted by the shutdown of its worker; its policy is to fail, not to be requeued"
    )
    if not by_policy:
        found: Any = worker.connection.hget(job.key, ATTEMPTS_FIELD)
        error = too_many_interruptions(interruptions, attempts.load(found), why)
    exc_info = (type(error), error, None)

    def run_callbacks() -> None:
        try:
            rq_private.failure_callback(job, _penalty(worker), *exc_info)
        except Exception:
            logger.exception(log.CALLBACK_FAILED, worker.name, job.id)
        worker.handle_exception(job, *exc_info)

    if not _in_a_child(run_callbacks, min(CHILD_SECONDS, worker.seconds_left / 2)):
        logger.warning(log.CALLBACK_KILLED, worker.name, job.id)
    if job.retries_left:
        job.retries_left = 0  # Failed for good: otherwise handle_job_failure would retry it (should_retry).
    rq_private.fail(worker, job, queue, f"{type(error).__name__}: {error}", execution)
    try:
        failed = job.get_status(refresh=True) in OVER
    except InvalidJobOperation:
        return True  # It was deleted meanwhile.
    if not failed:
        # RQ only logs it where a failure could not be stored (BaseWorker.handle_job_failure): it has to be done again.
        raise redis.exceptions.ConnectionError(f"the failure of job {job.id} could not be stored")
    return True


def too_many_interruptions(interruptions: int, evidence: Sequence[Attempt], why: str = "") -> TooManyInterruptions:
    """The error of a job that was interrupted too often; :class:`PoisonJob` if it has cost a worker.

    Args:
        interruptions: how often.
        evidence: how its attempts have ended, as far as is known.
        why: why its horse could not start, if that counted as the last interruption.
    """
    deaths = sum(attempt.ended is AttemptEnd.WORKER_DIED for attempt in evidence)
    said = f"interrupted by {interruptions} shutdowns, the last one included"
    if why:
        said = f"its work horse could not start: {why} (interruption {interruptions})"
    elif deaths:
        said = f"interrupted {interruptions} times; its worker was killed in {deaths} of the last {len(evidence)}"
    error = PoisonJob if deaths else TooManyInterruptions
    return error("\n".join([said, *attempts.described(evidence)]))


def policy(worker: Any, job: Job) -> Policy | None:
    """What a job says of its interruption, or None: it says nothing, or cannot be read here in a reasonable time.

    Args:
        worker: the worker that asks.
        job: the job; it is unpickled in a child process only.
    """
    said = mmap.mmap(-1, 1)  # Shared with the child.

    def ask() -> None:
        function = None
        with contextlib.suppress(Exception):
            function = job.func
        said[0] = ANSWERS.index(policy_of(function, job.meta))

    with said:
        if not _in_a_child(ask, min(CHILD_SECONDS, worker.seconds_left / 2)):
            logger.warning(log.POLICY_UNREADABLE, job.id)
        return ANSWERS[said[0]]


def _in_a_child(call: Callable[[], object], seconds: float) -> bool:
    """Call in a child process: callback and handlers unpickle the job (``BaseWorker.handle_exception``).

    A payload that hangs, exits or exhausts memory when it is unpickled may be the reason for the interruptions.

    Returns:
        whether the child ended in time; otherwise it was killed.
    """
    close_database_connections()
    parent = os.getpid()
    with os_signals.blocked():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for signum in os_signals.STOP_SIGNALS:
                    signal.signal(signum, signal.SIG_IGN)
                os_signals.unblock()
                parent_death.watch(parent, signal.SIGKILL)
                call()
                sys.stdout.flush()
                code = 0
            except BaseException:
                logger.exception(log.HANDLER_FAILED)
            finally:
                os._exit(code)
    until = Deadline.after(seconds)
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if until.expired:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            time.sleep(POLL_SECONDS)
    except ChildProcessError:
        pass  # A job in a worker without horses has left SIGCHLD ignored.
    return True


def _penalty(worker: BaseWorker) -> type:
    """The worker's death penalty, limited to ``CALLBACK_SECONDS``."""
    base: Any = worker.death_penalty_class

    class Short(base):  # type: ignore[misc]
        def __init__(self, timeout: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(min(timeout, CALLBACK_SECONDS) if timeout > 0 else CALLBACK_SECONDS, *args, **kwargs)

    return Short
