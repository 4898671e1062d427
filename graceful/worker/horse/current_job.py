"""The job in a worker's hands: kept to the limits of a shutdown, and put back where the shutdown ended it."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import replace

from redis.exceptions import RedisError
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome
from graceful.core.policy import Limits
from graceful.core.records import InFlightJob
from graceful.core.text import cut, one_line
from graceful.jobs.shared_memory import SharedMemory, Verdict
from graceful.worker.compat import rq_private
from graceful.worker.queue import fail_job
from graceful.worker.queue.fetch import release_job
from graceful.worker.queue.requeue import NOT_ONCE, Requeued, requeue
from graceful.worker.shutdown import os_signals

log = logging.getLogger("graceful.worker")
STACK_SECONDS = 0.5
QUIET_SECONDS = 0.05
"""faulthandler writes line by line, and nothing says which is the last: when none came for so long."""
RETRY_SECONDS = 0.2
BECAME = {
    JobOutcome.INTERRUPTED: "was interrupted, and is back at the front of its queue",
    JobOutcome.KILLED: "was killed, and is back at the front of its queue",
    JobOutcome.RETURNED: "was not started, and is back at the front of its queue",
    JobOutcome.INTERRUPTION_FAILED: "was interrupted, and has failed for it",
    JobOutcome.FINISHED: "was broken off, but had finished",
    JobOutcome.FAILED: "was broken off, but had failed",
}
"""What the log says of a job that was put back, or needed not be."""
FREE_TRIES = 5
"""From so many horses in a row on that could not begin, each counts as an interruption of its job."""
UNKNOWN_FUNCTION = "?"
NOT_DONE = frozenset({Verdict.INTERRUPTED, Verdict.UNSTARTED, Verdict.TAKEN})


class CurrentJob:
    """One job, from the moment at which it was taken.

    Args:
        worker: the worker that holds it.
        life: the worker's life.
        memory: the memory shared with the horse.
        settings: the settings that hold for the worker.
        job: the job.
        queue: the queue that it came from.
    """

    def __init__(
        self, worker: BaseWorker, life: str, memory: SharedMemory, settings: Settings, job: Job, queue: Queue
    ) -> None:
        self._worker = worker
        self._life = life
        self._memory = memory
        self._settings = settings
        self.job = job
        self.queue = queue
        self.execution: Execution | None = None
        self.horse_status: int | None = None
        """What ``waitpid`` said of the horse's end; None before it, and where there is no horse."""
        self.hard_limit_hit = False
        self.broken_off = False
        """Whether the worker could not see the job to its end, because of an error of its own or of Redis."""
        self.left_open = False
        """Whether ``execute_job`` returned and the job has not come to an end: it is not ours to decide about."""
        self._finished = False
        self.returned = False
        """Whether it is certain that the job is in nobody's hands through us."""
        self._record = InFlightJob(job.id, "", queue.name)

    @property
    def record(self) -> InFlightJob:
        """What the report says of the job. Its function is known once the horse has unpickled it."""
        return replace(self._record, function=self._memory.function or UNKNOWN_FUNCTION)

    @record.setter
    def record(self, record: InFlightJob) -> None:
        self._record = record

    @property
    def not_done(self) -> bool:
        """Whether the job's end is not its own, or not known to Redis: RQ's failure path is not for it."""
        return self.broken_off or self.hard_limit_hit or self._memory.verdict in NOT_DONE

    def keep_to(self, limits: Limits) -> float:
        """Interrupt the horse's job at the soft limit, kill the horse at the hard one.

        Returns:
            seconds until there is something to do again.
        """
        horse_pid = self._worker.horse_pid
        if limits.hard.expired:
            if not self.hard_limit_hit:
                log.warning("Worker %s: the job did not end, killing its horse %d", self._worker.name, horse_pid)
                interrupted_at, killed_at = self._memory.read_stack(), self.horse_stacks()
                if interrupted_at:
                    killed_at = f"When it was interrupted:\n{interrupted_at}\n\nWhen it was killed:\n{killed_at}"
                self._memory.write_stack(killed_at)
                self.hard_limit_hit = True
                self._worker.kill_horse(signal.SIGKILL)
            return RETRY_SECONDS
        if limits.soft.expired:
            if not self._memory.interrupt:
                log.warning("Worker %s: no time left for the job, interrupting it", self._worker.name)
                self._memory.interrupt = True
                send(horse_pid, os_signals.INTERRUPT_SIGNAL)
            return limits.hard.left()
        return limits.soft.left()

    def horse_stacks(self) -> str:
        """Stacks of all threads of the horse, written by faulthandler: also of one that hangs in C code.

        They come by the file that keeps where the job was interrupted, behind that, and are taken out of it again.
        """
        kept = text = self._memory.read_stack()
        send(self._worker.horse_pid, os_signals.STACKS_SIGNAL)
        until, quiet_at = Deadline.after(STACK_SECONDS), Deadline.after(STACK_SECONDS)
        while not until.expired:
            time.sleep(0.005)
            before, text = text, self._memory.read_stack()
            if text != before:
                quiet_at = Deadline.after(QUIET_SECONDS)
            elif text != kept and quiet_at.expired:
                break
        if not text.startswith(kept):
            return text  # Interrupted meanwhile, which has written anew.
        if text != kept:
            self._memory.write_stack(kept)
        return text.removeprefix(kept).strip()

    @property
    def unstarted(self) -> bool:
        """Whether the horse could not begin with the job."""
        return self._memory.verdict is Verdict.UNSTARTED

    def requeue_or_fail(self, until: Deadline, tries: int = 0) -> None:
        """Put it at the front of its queue, or fail it where that is asked for; ``record`` tells which.

        Args:
            until: Redis may be slow or away just now; when to give up.
            tries: how many horses in a row could not begin.
        """
        verdict = self._memory.verdict
        self.record = replace(self.record, stack=cut(self._memory.read_stack()))
        if verdict is Verdict.TAKEN:
            self.returned = True
            self.record = replace(self.record, outcome=JobOutcome.RETURNED)
            return
        # A job that breaks its worker off each time must not do so for ever.
        broken_off = self.broken_off and self.execution is not None and verdict is not Verdict.UNSTARTED
        in_vain = self.unstarted and tries >= FREE_TRIES
        counts = self.hard_limit_hit or verdict is Verdict.INTERRUPTED or broken_off or in_vain
        fails = counts and not in_vain and (self._memory.policy or self._settings.interrupted_jobs) == "fail"
        most = (NOT_ONCE if fails else self._settings.max_interruptions) if counts else None
        given = self._requeue(most, until)
        if given is None:
            self.record = replace(self.record, outcome=JobOutcome.UNKNOWN)
            return
        self.returned = True
        self.record = replace(self.record, outcome=self._outcome(given, fails), interruptions=given.interruptions)
        log.warning("Worker %s: job %s %s", self._worker.name, one_line(self.job.id), BECAME[self.record.outcome])

    def look(self) -> None:
        """RQ's ``execute_job`` has returned: see what became of a job of which the horse said nothing.

        A horse that ended in the middle of its job with exit code 0 (``os._exit(0)``) has failed it: RQ takes that for
        a job that came to its end (``Worker.monitor_work_horse``), and it would stay started. Otherwise the worker's
        class has a way of its own to run jobs, or did nothing: the job is left as it is, for RQ's maintenance to find.
        """
        verdict = self._memory.verdict
        if self.not_done or verdict in (Verdict.FINISHED, Verdict.FAILED) or self.horse_status not in (None, 0):
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
        elif status in (JobStatus.QUEUED, JobStatus.STARTED):
            self._let_go()
            self.left_open = True

    def _let_go(self) -> None:
        """Leave the job to RQ's maintenance: its entries, made to last while we held it, expire as RQ means them to."""
        connection = self._worker.connection
        release_job(connection, self._life, self.job.id, self.queue.key)
        if self.execution is not None:
            with connection.pipeline() as pipeline:
                seconds = int(self._worker.get_heartbeat_ttl(self.job))
                self.execution.heartbeat(self.job.started_job_registry, seconds, pipeline=pipeline)
                pipeline.execute()

    def settle(self) -> None:
        """The job has come to an end: ``record`` tells which, unless it was put back and tells that already."""
        if self.left_open or self.record.outcome is not JobOutcome.RUNNING:
            return
        verdict = self._memory.verdict
        if verdict is Verdict.NONE:
            self._clear_intermediate()
        finished = verdict is Verdict.FINISHED or self._finished
        self.record = replace(self.record, outcome=JobOutcome.FINISHED if finished else JobOutcome.FAILED)

    def _clear_intermediate(self) -> None:
        """A horse that died before it began leaves its job, failed by RQ, in the intermediate queue too."""
        try:
            IntermediateQueue(self.queue.key, self._worker.connection).remove(self.job.id)
        except RedisError as error:
            name = self._worker.name
            log.warning("Worker %s: job %s is still in the intermediate queue: %s", name, self.job.id, error)

    def end_with_us(self) -> None:
        """The job ends with this very process: what becomes of it then is its reaper's business."""
        self.hard_limit_hit = True
        self.record = replace(self.record, stack=cut(self._memory.read_stack()), outcome=JobOutcome.UNKNOWN)

    def _outcome(self, given: Requeued, fails: bool) -> JobOutcome:
        if given.too_many:
            why = self._record.stack if self.unstarted else ""
            failed = fail_job.fail(
                self._worker, self.job, self.queue, self.execution, given.interruptions, by_policy=fails, why=why
            )
            return JobOutcome.INTERRUPTION_FAILED if failed else JobOutcome.FINISHED
        # Where it is not held any more a first try had worked, and its reply was lost.
        if not given.back and given.found != "not held":
            return given.own_end
        if self.hard_limit_hit:
            return JobOutcome.KILLED
        return JobOutcome.INTERRUPTED if self._memory.verdict is Verdict.INTERRUPTED else JobOutcome.RETURNED

    def _requeue(self, most: int | None, until: Deadline) -> Requeued | None:
        while True:
            try:
                if self.broken_off and self.execution is None:
                    # Its making may have had no reply.
                    self.execution = rq_private.latest_execution(
                        self._worker.connection, self.job.id, self.job.origin, self._worker.name
                    )
                return requeue(self._worker, self._life, self.job, self.queue.key, self.execution, most)
            except RedisError as error:
                log.error("Worker %s: job %s is not back in its queue yet: %s", self._worker.name, self.job.id, error)
                if until.expired:
                    return None
                time.sleep(min(RETRY_SECONDS, until.left()))


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def kill(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a horse and to the process group that it leads, and to no other group.

    RQ signals the group that the horse is in (``Worker.kill_horse``, read in 2.6.1 to 3.0.0). Until the horse has made
    its own group, right after the fork, or where the job has joined another one, that is the worker's group.
    """
    try:
        os.killpg(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass  # It leads no group; macOS says EPERM where only zombies are left in it.
    send(pid, signum)
