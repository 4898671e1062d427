"""The job in flight: what its process said of it, and what becomes of it at its end."""

from __future__ import annotations

import logging
import os
import socket
import time

from redis.exceptions import RedisError
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.attempts import Attempt
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome
from graceful.core.records import InFlightJob, utc_now
from graceful.core.text import cut, one_line, signal_name
from graceful.exceptions import JobMemoryExceeded
from graceful.jobs.progress import Progress, last_progress
from graceful.jobs.shared_memory import SharedMemory, Stage, Verdict
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from graceful.worker.queue.fetch import release_job
from graceful.worker.queue.requeue import HeldJob, Requeued, Why, requeue

log = logging.getLogger("graceful.worker")
RETRY_SECONDS = 0.2
BECAME = {
    JobOutcome.INTERRUPTED: "was interrupted and requeued",
    JobOutcome.KILLED: "was killed and requeued",
    JobOutcome.RETURNED: "was not started and has been requeued",
    JobOutcome.INTERRUPTION_FAILED: "was interrupted and has failed for it",
    JobOutcome.CANCELED: "was interrupted, and had been cancelled or deleted",
    JobOutcome.FINISHED: "was interrupted, but had finished",
    JobOutcome.FAILED: "was interrupted, but had failed",
}
YIELDED = "Worker %s: job %s has run for its max_runtime, and is at the end of its queue"
NOT_REQUEUED = "Worker %s: job %s could not be requeued yet: %s"
FREE_TRIES = 5
"""From so many horses in a row on that could not begin, each counts as an interruption of its job."""
GAVE_UP = "Not started: the work horse ended with exit code {} before it began"
UNKNOWN_FUNCTION = "?"
NOT_ITS_END = frozenset({Verdict.INTERRUPTED, Verdict.YIELDED, Verdict.UNSTARTED, Verdict.TAKEN})


class CurrentJob:
    """One job, from the moment at which it was taken.

    Args:
        worker: the worker that holds it.
        worker_id: the worker's id.
        memory: the memory shared with the job's process.
        settings: the settings that hold for the worker.
        job: the job.
        queue: the queue that it came from.
    """

    def __init__(
        self, worker: BaseWorker, worker_id: str, memory: SharedMemory, settings: Settings, job: Job, queue: Queue
    ) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._memory = memory
        self._settings = settings
        self.job = job
        self.queue = queue
        self.started_at = utc_now()
        self.execution: Execution | None = None
        self.horse_status: int | None = None
        """What ``waitpid`` said of the horse's end; None before it, and where there is no horse."""
        self.horse_peak: int | None = None
        """The most that its horse had resident, in bytes; None as long as that is not known."""
        self.killed_for_memory = False
        """Whether it was killed because it had too much memory, and did not end for that."""
        self.cut_off = False
        """Whether the worker could not see the job to its end, because of an error of its own or of Redis."""
        self.left_open = False
        """Whether ``execute_job`` returned and the job has not come to an end: it is not ours to decide about."""
        self.yielded = False
        """Whether it went to the end of its queue by its own wish: nobody has interrupted it."""
        self.ends_with_process = False
        """Whether the worker's process ends with the job in it: until it is gone, the job runs on."""
        self._finished = False

    @property
    def record(self) -> InFlightJob:
        """The job as the report shows it while it runs; its function is known once its process has unpickled it."""
        function = self._memory.function or UNKNOWN_FUNCTION
        return InFlightJob(self.job.id, function, self.queue.name, started_at=self.started_at)

    @property
    def unstarted(self) -> bool:
        """Whether its horse could not begin with it."""
        return self._memory.verdict is Verdict.UNSTARTED

    def horse_ended(self, status: int, peak: int | None = None) -> None:
        """Take note of the horse's end; one that gave up before RQ's code began has done nothing of the job.

        A spawned horse loads Django first, which may fail for reasons of the machine: a full disk, a deploy that
        replaces the code at that instant.

        Args:
            status: what ``waitpid`` said of it.
            peak: the most that it had resident, in bytes.
        """
        self.horse_status, self.horse_peak = status, peak
        memory = self._memory
        gave_up = os.WIFEXITED(status) and os.WEXITSTATUS(status) != os.EX_OK
        if gave_up and memory.stage is Stage.STARTING and memory.verdict is Verdict.NONE:
            memory.write_stack(GAVE_UP.format(os.WEXITSTATUS(status)))
            memory.verdict = Verdict.UNSTARTED

    def own_end(self, killed: bool) -> bool:
        """Whether the job's end is its own and known to Redis, so that RQ may deal with it; ``killed``: by us."""
        return not (self.cut_off or killed or self._memory.verdict in NOT_ITS_END)

    def look(self, killed: bool) -> None:
        """RQ's ``execute_job`` has returned: see what became of a job of which its process said nothing.

        A horse that ended in the middle of its job with exit code 0 (``os._exit(0)``) has failed it: RQ takes that for
        a job that came to its end (``Worker.monitor_work_horse``), and it would stay started. Otherwise the worker's
        class has a way of its own to run jobs, or did nothing: the job is left as it is, for RQ's maintenance to find.
        A failure that Redis was not told of is none: the job is requeued.
        """
        verdict = self._memory.verdict
        if not self.own_end(killed) or verdict is Verdict.FINISHED:
            return
        if self.killed_for_memory and verdict is Verdict.NONE:
            self._fail_for_memory()
            return
        if verdict is Verdict.FAILED or self.horse_status not in (None, 0):
            self.cut_off = self._failure_lost()
            return
        try:
            status = self.job.get_status(refresh=True)
        except InvalidJobOperation:
            return  # It was deleted.
        self._finished = status == JobStatus.FINISHED
        if status == JobStatus.STARTED and self.horse_status == 0 and verdict is Verdict.NONE:
            reason = "Work-horse terminated unexpectedly, in the middle of the job, with exit code 0"
            log.warning("Worker %s: job %s failed (%s)", self._worker.name, self.job.id, reason)
            rq_private.fail(self._worker, self.job, self.queue, reason, self.execution)
            self.cut_off = self._failure_lost()
        elif status in (JobStatus.QUEUED, JobStatus.STARTED):
            self._let_go()
            self.left_open = True

    def _fail_for_memory(self) -> None:
        """Its horse was killed for its memory; RQ would say no more than that it was killed."""
        used, limit = self._memory.exceeded or (0, 0)
        error = JobMemoryExceeded.of(self._memory.function or UNKNOWN_FUNCTION, used, limit)
        stack = self._memory.read_stack()
        reason = f"{stack}\n{type(error).__name__}: {error}; it did not end for that, and was killed".lstrip()
        log.warning("Worker %s: job %s failed (%s)", self._worker.name, self.job.id, one_line(str(error)))
        rq_private.fail(self._worker, self.job, self.queue, cut(reason), self.execution)
        self.cut_off = self._failure_lost()

    def _failure_lost(self) -> bool:
        """Whether Redis does not know that the job has failed, or did not say.

        RQ only logs it where a failure could not be stored (``BaseWorker.handle_job_failure``): the job would stay
        started, in nobody's hands. The execution is removed in the transaction that stores the failure.
        """
        if self.execution is None:
            return False
        try:
            key = rq_private.started_registry_key(self.job.origin, self._worker.connection)
            return self._worker.connection.zscore(key, self.execution.composite_key) is not None
        except RedisError:
            return True

    def end(self, killed: bool, failed_starts: int, until: Deadline) -> InFlightJob:
        """Settle it: its own end stays, otherwise it is requeued, or failed where that is asked for.

        Args:
            killed: whether it was killed at the hard limit.
            failed_starts: how many horses in a row could not begin.
            until: when to give up requeueing it, where Redis is unreachable.

        Returns:
            what became of it; ``UNKNOWN`` where Redis could not be told.
        """
        if self.own_end(killed):
            verdict = self._memory.verdict
            if verdict is Verdict.NONE:
                self._clear_intermediate()
            finished = verdict is Verdict.FINISHED or self._finished
            return self.record._replace(outcome=JobOutcome.FINISHED if finished else JobOutcome.FAILED)
        record = self.record._replace(stack=cut(self._memory.read_stack()))
        if self._memory.verdict is Verdict.TAKEN:
            return record._replace(outcome=JobOutcome.RETURNED)  # Another worker's by now.
        why = self._why(killed, failed_starts)
        given = self._requeue(why, until)
        if given is None:
            return record._replace(outcome=JobOutcome.UNKNOWN)
        record = record._replace(outcome=given.outcome(why), interruptions=given.interruptions)
        reached = self._reached()
        if reached is not None:
            record = record._replace(progress_done=reached.done, progress_total=reached.total)
        if given.must_fail:
            cause = record.stack if self.unstarted else ""
            failed = fail_job.fail(
                self._worker,
                self.job,
                self.queue,
                self.execution,
                given.interruptions,
                by_policy=given.by_policy,
                why=cause,
            )
            outcome = JobOutcome.INTERRUPTION_FAILED if failed else JobOutcome.FINISHED
            record = record._replace(outcome=outcome)
        # Also where a first try had worked and its reply was lost.
        self.yielded = why is Why.YIELDED and record.outcome is JobOutcome.INTERRUPTED
        if self.yielded:
            log.info(YIELDED, self._worker.name, one_line(self.job.id))
        else:
            log.warning("Worker %s: job %s %s", self._worker.name, one_line(self.job.id), BECAME[record.outcome])
        return record

    def left_behind(self) -> InFlightJob:
        """The worker's process ends with the job in it: whoever finds it dead requeues the job."""
        self.ends_with_process = True
        return self.record._replace(stack=cut(self._memory.read_stack()), outcome=JobOutcome.UNKNOWN)

    def _why(self, killed: bool, failed_starts: int) -> Why:
        if self.unstarted:
            return Why.CANNOT_START if failed_starts >= FREE_TRIES else Why.NOT_STARTED
        if killed:
            return Why.KILLED
        if self._memory.verdict is Verdict.YIELDED:
            return Why.YIELDED
        if self._memory.verdict is Verdict.INTERRUPTED:
            return Why.INTERRUPTED
        # A job that cuts its worker off each time must not do so for ever.
        return Why.NOT_STARTED if self.execution is None else Why.CUT_OFF

    def _requeue(self, why: Why, until: Deadline) -> Requeued | None:
        connection = self._worker.connection
        while True:
            try:
                if self.cut_off and self.execution is None:
                    # Its making may have had no reply.
                    self.execution = rq_private.latest_execution(
                        connection, self.job.id, self.job.origin, self._worker.name
                    )
                held = HeldJob(self._worker_id, self.job.id, self.job.origin, self.queue.key, self.execution)
                attempt = self._attempt(why)
                return requeue(connection, held, why, self._settings, policy=self._memory.policy, attempt=attempt)
            except RedisError as error:
                log.error(NOT_REQUEUED, self._worker.name, self.job.id, error)
                if until.expired:
                    return None
                time.sleep(min(RETRY_SECONDS, until.left()))

    def _attempt(self, why: Why) -> Attempt | None:
        """What is known of how this attempt has ended; None if it does not count."""
        if why.attempt_end is None:
            return None
        status = self.horse_status
        ended_by = signal_name(os.WTERMSIG(status)) if status and os.WIFSIGNALED(status) else ""
        return Attempt(
            ended=why.attempt_end,
            at=utc_now(),
            worker=self._worker.name,
            hostname=socket.gethostname(),
            function=self._memory.function,
            signal=ended_by,
            peak_bytes=self.horse_peak,
            stack=self._memory.read_stack(),
        )

    def _reached(self) -> Progress | None:
        """How far a job that did not come to its end had got."""
        if self.unstarted:
            return None
        try:
            return last_progress(self.job)
        except RedisError:
            return None

    def _let_go(self) -> None:
        """Leave the job to RQ's maintenance: its entries, made to last while we held it, expire as RQ means them to."""
        connection = self._worker.connection
        release_job(connection, self._worker_id, self.job.id, self.queue.key)
        if self.execution is not None:
            with connection.pipeline() as pipeline:
                seconds = int(self._worker.get_heartbeat_ttl(self.job))
                self.execution.heartbeat(self.job.started_job_registry, seconds, pipeline=pipeline)
                pipeline.execute()

    def _clear_intermediate(self) -> None:
        """A horse that died before it began leaves its job, failed by RQ, in the intermediate queue too."""
        try:
            IntermediateQueue(self.queue.key, self._worker.connection).remove(self.job.id)
        except RedisError as error:
            name = self._worker.name
            log.warning("Worker %s: job %s is still in the intermediate queue: %s", name, self.job.id, error)
