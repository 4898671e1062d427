"""Jobs of a worker class with a way of its own to run them: in threads or greenlets of the worker's process.

Such a class overrides ``execute_job``, hands the job on and returns. What it does is left to it, as by RQ's own loop:
our limits do not hold for these jobs, and nobody requeues them. But they are counted, and the end waits for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rq.job import Job
from rq.queue import Queue

from graceful.core.events import JobEnded
from graceful.core.phases import JobOutcome
from graceful.core.records import InFlightJob
from graceful.worker.cluster.membership import Membership
from graceful.worker.compat import rq_private
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.os_signals import Inbox

LOOK_SECONDS = 0.05


class ThreadJobs:
    """The jobs that run in threads of one worker's class.

    Args:
        coordinator: is told of their ends.
        membership: sends the worker's heartbeat while they are waited for.
        inbox: is told meanwhile that the loop is alive.
    """

    def __init__(self, coordinator: Coordinator, membership: Membership, inbox: Inbox) -> None:
        self._inbox = inbox
        self._coordinator = coordinator
        self._membership = membership
        self._running: dict[str, tuple[Job, Queue]] = {}
        self._used = False
        self._lock = threading.Lock()

    @property
    def any_running(self) -> bool:
        """Whether a job runs in a thread now."""
        return bool(self._running)

    @contextmanager
    def running(self, job: Job, queue: Queue) -> Iterator[Callable[[bool], None]]:
        """The job runs in this block, which calls what it gets with whether the job finished."""
        outcome = JobOutcome.FAILED

        def came_to(finished: bool) -> None:
            nonlocal outcome
            outcome = JobOutcome.FINISHED if finished else JobOutcome.FAILED

        with self._lock:
            self._running[job.id] = (job, queue)
            self._used = True
        try:
            yield came_to
        finally:
            with self._lock:
                self._running.pop(job.id, None)
            self._ended(job, queue, outcome)

    def handed_on(self) -> None:
        """``execute_job`` has returned before the job came to an end; a thread may begin with it only later."""
        self._used = True

    def wait(self) -> None:
        """Wait for the jobs, after a stop was asked for until the hard limit; the report names those left running."""
        if not self._used:
            return
        quiet = 0
        while quiet < 2:  # A pool may be between two jobs.
            limits = self._coordinator.attend().limits
            self._membership.beat()
            self._inbox.comes_by()
            quiet = 0 if self._running else quiet + 1
            if limits is not None and limits.hard.expired:
                break
            # Not the inbox: where threads are greenlets, only this lets them go on.
            time.sleep(LOOK_SECONDS)
        with self._lock:
            left = list(self._running.values())
        for job, queue in left:
            self._ended(job, queue, JobOutcome.UNKNOWN)

    def _ended(self, job: Job, queue: Queue, outcome: JobOutcome) -> None:
        function = rq_private.function_name(job)  # Its class has unpickled it in this process.
        self._coordinator.send(JobEnded(InFlightJob(job.id, function, queue.name, outcome)))
