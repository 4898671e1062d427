"""The process that a job runs in, as the worker acts on it: interrupt it, kill it, ask where it stands."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rq.worker import BaseWorker

from graceful.core.deadline import Deadline
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.worker.shutdown.os_signals import INTERRUPT_SIGNAL, STACKS_SIGNAL

log = logging.getLogger("graceful.worker")
INTERRUPTING = "Worker %s: no time left for the job, interrupting it"
KILLING = "Worker %s: the job did not end, killing its horse %d"
STORE_SECONDS = 0.2
"""How long a job that came to its end after the hard limit may take to store it."""
STACK_SECONDS = 0.5
QUIET_SECONDS = 0.05
"""faulthandler writes line by line, and nothing says which is the last: when none came for so long."""


class JobProcess(Protocol):
    """What the shutdown does to the job in flight."""

    can_be_killed: bool
    """Whether it can be killed without the worker."""

    @property
    def has_main_thread(self) -> bool:
        """Whether the job's own code runs in the worker's main thread now."""

    def interrupt(self) -> None:
        """Have ``JobInterrupted`` raised in the job."""

    def signal_job(self) -> None:
        """Have the job look at what is to be raised in it, which is in the memory that they share."""

    def kill(self, *, with_stacks: bool) -> None:
        """End it, and keep where it stood; at once, without stacks and log, where the main thread is stuck.

        It may hold the lock of a log that nobody reads.
        """

    def stacks(self) -> str:
        """Where its threads stand; empty where there is nothing to ask."""

    def store_late_end(self, seconds: float) -> None:
        """The worker's process is about to end: let a job that has come to its end in it meanwhile store that.

        Args:
            seconds: how long that may take at most.
        """


class HorseProcess:
    """The work horse.

    Args:
        worker: its worker.
        memory: the memory that they share.
    """

    can_be_killed = True
    has_main_thread = False

    def __init__(self, worker: BaseWorker, memory: SharedMemory) -> None:
        self._worker = worker
        self._memory = memory

    def interrupt(self) -> None:
        log.warning(INTERRUPTING, self._worker.name)
        self._memory.interrupt = True
        self.signal_job()

    def signal_job(self) -> None:
        if self._worker.horse_pid:
            send(self._worker.horse_pid, INTERRUPT_SIGNAL)

    def kill(self, *, with_stacks: bool) -> None:
        if not self._worker.horse_pid:
            return
        try:
            if with_stacks:
                log.warning(KILLING, self._worker.name, self._worker.horse_pid)
                self._keep_stacks()
        finally:
            self._worker.kill_horse(signal.SIGKILL)

    def _keep_stacks(self) -> None:
        interrupted_at, killed_at = self._memory.read_stack(), self.stacks()
        if interrupted_at:
            killed_at = f"When it was interrupted:\n{interrupted_at}\n\nWhen it was killed:\n{killed_at}"
        self._memory.write_stack(killed_at)

    def stacks(self) -> str:
        """Stacks of all threads of the horse, written by faulthandler: also of one that hangs in C code.

        They come by the file that keeps where the job was interrupted, behind that, and are taken out of it again.
        """
        if not self._worker.horse_pid:
            return ""
        kept = text = self._memory.read_stack()
        send(self._worker.horse_pid, STACKS_SIGNAL)
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

    def store_late_end(self, seconds: float) -> None:
        """Nothing here: a horse is gone by then."""


class OwnProcess:
    """The worker's own process, in which a simple worker runs its jobs.

    A job that does not end cannot be killed alone: the process ends with it, see
    :mod:`graceful.worker.horse.simple_worker`. Its fate is decided once: either its end is being stored, or the
    process ends with the job in it. Whichever thread ends the process, a job that has come to its end by then may
    store that first; otherwise it would run again for nothing.
    """

    can_be_killed = False

    def __init__(self, worker: BaseWorker, memory: SharedMemory) -> None:
        self._worker = worker
        self._memory = memory
        # No RLock: the thread that took it may hang in an exit hook while another one ends the process.
        self._fate = threading.Lock()
        self._ends_with_job, self._storing = False, 0
        self._has_ended, self._is_stored = threading.Event(), threading.Event()

    def job_begins(self) -> None:
        """Nothing of it has ended yet."""
        self._has_ended.clear()
        self._is_stored.clear()

    def end_with_job(self) -> bool:
        """Have the process end with the job in it; False while the job's end is being stored."""
        self._ends_with_job = self._ends_with_job or self._fate.acquire(blocking=False)
        return self._ends_with_job

    @contextmanager
    def storing(self) -> Iterator[None]:
        """The block stores the job's end; once the process ends with the job it is entered at the last chance only.

        Within it, it may be entered again: RQ fails a job whose ``Retry`` is used up in ``handle_job_retry``.
        """
        if self._storing == threading.get_ident():
            yield
            return
        self._has_ended.set()
        with self._fate:
            self._storing = threading.get_ident()
            try:
                yield
            finally:
                self._storing = 0
        self._is_stored.set()

    def store_late_end(self, seconds: float) -> None:
        if self._has_ended.is_set() and not self._is_stored.is_set():
            if self._ends_with_job:
                self._ends_with_job = False
                self._fate.release()
            self._is_stored.wait(min(STORE_SECONDS, seconds))

    @property
    def has_main_thread(self) -> bool:
        return self._memory.stage is Stage.RUNNING

    def interrupt(self) -> None:
        log.warning(INTERRUPTING, self._worker.name)
        self._memory.interrupt = True
        self.signal_job()

    def signal_job(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)

    def kill(self, *, with_stacks: bool) -> None:
        """Nothing here: the state says that the job has to go, and the attendant thread ends the process."""

    def stacks(self) -> str:
        return ""


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
