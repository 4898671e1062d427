"""The process that a job runs in, as the worker acts on it: interrupt it, kill it, ask where it stands."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Protocol

from rq.worker import BaseWorker

from graceful.core.deadline import Deadline
from graceful.jobs.shared_memory import SharedMemory, Stage
from graceful.worker.shutdown.os_signals import INTERRUPT_SIGNAL, STACKS_SIGNAL

log = logging.getLogger("graceful.worker")
INTERRUPTING = "Worker %s: no time left for the job, interrupting it"
KILLING = "Worker %s: the job did not end, killing its horse %d"
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

    def kill(self, *, with_stacks: bool) -> None:
        """End it, and keep where it stood; at once, without stacks and log, where the main thread is stuck.

        It may hold the lock of a log that nobody reads.
        """

    def stacks(self) -> str:
        """Where its threads stand; empty where there is nothing to ask."""


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


class OwnProcess:
    """The worker's own process, in which a simple worker runs its jobs.

    A job that does not end cannot be killed alone: the process ends with it, see
    :mod:`graceful.worker.horse.simple_worker`.
    """

    can_be_killed = False

    def __init__(self, worker: BaseWorker, memory: SharedMemory) -> None:
        self._worker = worker
        self._memory = memory

    @property
    def has_main_thread(self) -> bool:
        return self._memory.stage is Stage.RUNNING

    def interrupt(self) -> None:
        log.warning(INTERRUPTING, self._worker.name)
        self._memory.interrupt = True
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
