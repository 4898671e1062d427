"""The horse's side: its signals, its job, its exit hooks. Also used by a worker that runs jobs itself."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import redis
from rq.job import Job

from graceful import conf
from graceful import memory as memory_sizes
from graceful.conf import Settings
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome, Reason
from graceful.core.records import HookResult, JobTally, Shutdown, utc_now
from graceful.exceptions import JobInterrupted
from graceful.hooks import registry, runner
from graceful.jobs import interruption
from graceful.jobs.on_interrupt import policy_of
from graceful.jobs.shared_memory import SharedMemory, Stage, Verdict
from graceful.reports.resumed import Resumed, note_end, note_start
from graceful.worker.cluster.process_identity import Process
from graceful.worker.compat import rq_private
from graceful.worker.horse import parent_death
from graceful.worker.horse.cursor_store import CursorStore
from graceful.worker.queue.fetch import claim, describe
from graceful.worker.queue.requeue import HeldJob, Why, requeue
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.exit import leave

T = TypeVar("T")

log = logging.getLogger("graceful.worker")


ENDINGS = {
    Verdict.FINISHED: JobOutcome.FINISHED,
    Verdict.FAILED: JobOutcome.FAILED,
    Verdict.INTERRUPTED: JobOutcome.INTERRUPTED,
    Verdict.YIELDED: JobOutcome.INTERRUPTED,
}
_memory: SharedMemory | None = None


def settle(memory: SharedMemory) -> None:
    """Take up the signals of a newborn horse, which its parent held back until now.

    SIGTERM gets a handler that does nothing rather than being ignored: what is ignored stays ignored in the programs
    that a job starts (``execve(2)``), and ``Popen.terminate`` would have no effect on them.
    """
    global _memory
    _memory = memory
    signal.signal(signal.SIGTERM, _ignore)
    signal.signal(os_signals.QUIET_SIGNAL, _ignore)
    signal.signal(os_signals.INTERRUPT_SIGNAL, interrupt)
    faulthandler.register(os_signals.STACKS_SIGNAL, file=memory.stacks, all_threads=True, chain=False)
    os.register_at_fork(after_in_child=_let_go)
    os_signals.unblock()
    parent_death.watch(memory.worker_pid)
    memory.stage = Stage.READY


def perform(
    memory: SharedMemory,
    connection: redis.Redis,
    held: HeldJob,
    job: Job,
    rq_perform: Callable[[], bool],
    settings: Settings,
    worker: str,
) -> bool:
    """Run RQ's ``perform_job`` so that the job can be interrupted; then the horse exit hooks.

    Args:
        memory: the memory shared with the worker; what became of the job is written there.
        connection: a Redis client.
        held: the job as its worker holds it.
        job: the job.
        rq_perform: RQ's ``perform_job`` of this job.
        settings: the settings that hold here.
        worker: name of the worker.

    Returns:
        as RQ's: whether the job finished.
    """
    try:
        interruptions = claim(connection, held.worker_id, job.id, Process.here())
        if interruptions is None:
            log.warning("Job %s is not held by this worker any more, and is not started", job.id)
            memory.verdict = Verdict.TAKEN
            return False
    except redis.exceptions.RedisError as error:
        not_started(memory, job.id, error)
        return False
    again = None
    if interruptions:
        again = Resumed(job.id, interruptions, utc_now(), worker, settings.release)
        note_start(connection, again)
    guard = interruption.install(memory, CursorStore(connection, job.key))
    assert guard is not None
    job_perform = job.perform

    def perform_described() -> Any:
        memory.function = rq_private.function_name(job)
        memory.policy = policy_of(_function(job), job.meta)
        guard.cooperative = (memory.policy or settings.interrupted_jobs) == "requeue"
        try:
            with guard.shield():
                describe(connection, held.worker_id, job.id, memory.function, fails=not guard.cooperative)
        except redis.exceptions.RedisError as error:
            not_started(memory, job.id, error)
            guard.interrupted = True  # So that RQ does not fail it, see end().
            raise JobInterrupted(str(error)) from error
        return _alone(job_perform)

    # RQ calls job.perform() under the job's own timeout (BaseWorker.perform_job): just there it may be interrupted.
    job.perform = lambda: guard.run(perform_described)  # type: ignore[method-assign]
    try:
        finished = rq_perform()
        if guard.settled:
            memory.verdict = Verdict.FINISHED if finished else Verdict.FAILED
        else:
            memory.verdict = Verdict.UNSETTLED
        return finished
    except JobInterrupted:
        if memory.verdict is Verdict.NONE:
            memory.verdict = Verdict.YIELDED if guard.yielded else Verdict.INTERRUPTED
        if _orphaned(memory):
            log.warning("Job %s was interrupted, because its worker was killed", job.id)
            if guard.cooperative:  # Otherwise it stays held, and a reaper fails it.
                killed = Attempt(
                    ended=AttemptEnd.WORKER_DIED,
                    at=utc_now(),
                    worker=worker,
                    hostname=socket.gethostname(),
                    function=memory.function,
                    peak_bytes=memory_sizes.peak(),
                    stack=memory.read_stack(),
                )
                requeue(connection, held, Why.INTERRUPTED, settings, policy="requeue", attempt=killed)
        return False
    finally:
        del job.perform
        interruption.install(None)
        if again is not None and memory.verdict in ENDINGS:
            note_end(connection, again, ENDINGS[memory.verdict], utc_now())
        _run_exit_hooks(memory)


def not_started(memory: SharedMemory, job_id: str, error: Exception) -> None:
    """Nothing of the job was done, because its horse could not speak to Redis; the worker is told why."""
    log.warning("Job %s is not started: %s", job_id, error)
    memory.write_stack(f"Not started: {type(error).__name__}: {error}")
    memory.verdict = Verdict.UNSTARTED


def _function(job: Job) -> Callable[..., Any] | None:
    """The job's function, or None where it cannot be had: RQ says so when it calls it."""
    try:
        found: Callable[..., Any] | None = job.func
    except Exception:
        return None
    return found


def _alone(perform: Callable[[], T]) -> T:
    """Call ``perform``; a child that it forked and that comes back from it as well is ended, as any script's would be.

    It is neither horse nor worker, and would store a second end of the job, run the horse exit hooks, and in a worker
    without horses go on as a second worker.
    """
    pid = os.getpid()
    code = os.EX_OK
    try:
        return perform()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except BaseException:
        code = 1
        if os.getpid() != pid:
            traceback.print_exc()
        raise
    finally:
        if os.getpid() != pid:
            leave(code)


def end() -> None:
    """RQ is about to settle the job's end; an interrupted job leaves RQ's ``perform_job`` instead.

    Raises:
        JobInterrupted: it was interrupted.
    """
    guard = interruption.guard
    if guard is None:
        return
    if guard.interrupted:
        raise JobInterrupted(interruption.REASON)
    guard.settled = True


def leave_to_worker() -> None:
    """Nobody here can say whether the job's success was stored: RQ must not store a failure on top of it, see end()."""
    guard = interruption.guard
    if guard is not None:
        guard.interrupted = True


def forget_cursors() -> None:
    """The job in hand has succeeded: what it noted for its next run must not be found by another.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    guard = interruption.guard
    if guard is not None:
        guard.cursors.clear()


def _run_exit_hooks(memory: SharedMemory) -> None:
    specs = registry.horse_exit_hooks()
    if not specs:
        return
    deadline = Deadline.after(conf.settings().hooks_timeout)
    limits = memory.limits
    if limits is not None:
        deadline = min(deadline, limits.hard)

    def shutdown(until: Deadline) -> Shutdown:
        return Shutdown(Reason.EXIT, None, "", (), JobTally(), until)

    try:
        runner.run_hooks(
            specs,
            shutdown=shutdown,
            deadline=deadline,
            on_start=lambda spec, seconds: None,
            on_end=lambda result: None,
            # A horse stuck in a hook has nothing left to do: its job is done and stored.
            take_over=_leave if os.getpid() != memory.worker_pid else None,
            of_horse=True,
        )
    except Exception:
        log.exception("The horse exit hooks failed")


def _leave(results: tuple[HookResult, ...]) -> NoReturn:
    os._exit(os.EX_OK)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The worker decides about its job's end, whoever else sends a signal."""


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Handler of the interrupt signal: raises in the job, where that is allowed."""
    if _memory is not None and _orphaned(_memory) and not _memory.interrupt:
        _memory.interrupt = True
        # Nobody is there to kill a job that does not stop.
        faulthandler.dump_traceback_later(conf.settings().interrupt_timeout, exit=True, file=_memory.stacks)
    if interruption.guard is not None:
        interruption.guard.on_signal(signum, frame)


def _orphaned(memory: SharedMemory) -> bool:
    return os.getpid() != memory.worker_pid != os.getppid()


def _let_go() -> None:
    """In a child that the job forked: it is no horse, and a SIGTERM ends it as ever."""
    for signum in (signal.SIGTERM, os_signals.QUIET_SIGNAL):
        if signal.getsignal(signum) is _ignore:
            signal.signal(signum, signal.SIG_DFL)
