"""What a worker does about what is asked of it: stop, be quiet, show the stacks."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.phases import Phase, Reason
from graceful.core.policy import Limits
from graceful.jobs.shared_memory import SharedMemory
from graceful.worker.compat import rq_private
from graceful.worker.horse.current_job import CurrentJob
from graceful.worker.shutdown import os_signals
from graceful.worker.shutdown.drain import STOPS, Drain
from graceful.worker.shutdown.ending import Ending
from graceful.worker.shutdown.lifetime import Lifetime

log = logging.getLogger("graceful.worker")
TIGHT_SHARE = 5
"""One Redis command may take this part of the hooks' time once the shutdown was asked for: a second by default."""
TIGHTEST_SECONDS = 0.1


def tight_seconds(settings: Settings) -> float:
    """How long one Redis command may take once the shutdown was asked for, in seconds."""
    return max(TIGHTEST_SECONDS, settings.hooks_timeout / TIGHT_SHARE)


class Attention:
    """Reads the inbox, and acts upon it.

    Args:
        worker: the worker.
        inbox: what was asked of it.
        drain: what has been made of that so far.
        settings: the settings that hold for it.
        memory: the memory through which the job is told.
        lifetime: the report.
        ending: guards the grace period once it has begun.
        current_job: the job in hand, or None.
    """

    def __init__(
        self,
        worker: BaseWorker,
        inbox: os_signals.Inbox,
        drain: Drain,
        settings: Settings,
        memory: SharedMemory,
        lifetime: Lifetime,
        ending: Ending,
        current_job: Callable[[], CurrentJob | None],
    ) -> None:
        self._worker = worker
        self._inbox = inbox
        self._drain = drain
        self._settings = settings
        self._memory = memory
        self._lifetime = lifetime
        self._ending = ending
        self._current_job = current_job
        self._lock = threading.Lock()

    def attend(self) -> None:
        """Act upon what was asked for since the last time.

        What it means for the worker is decided under the lock; what follows is done outside of it, by whichever
        thread came first: a log that nobody reads must not hold the other threads.
        """
        for follow_up in self._read():
            follow_up()

    def stop(self, reason: Reason) -> None:
        """The worker has to come to its end, though nobody asked for it; nothing to do where somebody has."""
        with self._lock:
            if self._drain.requested:
                return
            self._drain.begin(time.monotonic(), reason)
            self._requested()
        self._announce()

    def loop_left(self, reason: Reason, *, failed: bool) -> None:
        """The worker's loop came to its end.

        Args:
            reason: why, where nobody asked for it.
            failed: by an error, which then is the reason also where somebody did ask.
        """
        with self._lock:
            unasked = not self._drain.requested
            if unasked:
                self._drain.begin(time.monotonic(), reason)
                self._lifetime.requested(reason, None, self._drain.instants[0])
            elif failed:
                self._lifetime.change(reason=reason)
        if unasked:
            self._lifetime.tell_requested()

    def _read(self) -> list[Callable[[], None]]:
        follow_ups: list[Callable[[], None]] = []
        with self._lock:
            while (received := self._inbox.next()) is not None:
                if received.name in STOPS:
                    if self._drain.ask(received):
                        self._requested()
                        follow_ups.append(self._announce)
                    else:
                        self._tell_limits()
                        follow_ups.append(partial(self._log_again, self._drain.counted))
                elif received.name == os_signals.QUIET_SIGNAL.name:
                    self._drain.quiet = True
                    follow_ups.append(self._log_quiet)
                elif received.name == os_signals.STACKS_SIGNAL.name:
                    follow_ups.append(self._log_stacks)
        return follow_ups

    def _tell_limits(self) -> Limits:
        assert self._drain.limits is not None
        self._memory.announce(self._drain.limits)
        return self._drain.limits

    def _requested(self) -> None:
        """The first request: from here on the job has its limits, the end its guards and the report its reason."""
        self._ending.guard(self._tell_limits().end)
        self._lifetime.requested(self._drain.reason or Reason.SIGNAL, self._drain.signal, self._drain.instants[0])
        current_job = self._current_job()
        if current_job is not None:
            self._lifetime.change(phase=Phase.DRAINING)
            self._lifetime.job_met(current_job.record)

    def _announce(self) -> None:
        """What follows from the first request, once."""
        self._tighten()
        self._lifetime.post()
        process = rq_private.scheduler_process(self._worker)
        if process is not None and process.is_alive():
            process.terminate()
        self._lifetime.tell_requested()
        # Only now: where nobody reads the log any more it may hold us for ever.
        log.info(
            "Worker %s [PID %d]: shutdown requested (%s), %.1f s left",
            self._worker.name,
            os.getpid(),
            self._drain.signal or self._drain.reason,
            self._drain.end().left(),
        )

    def _log_again(self, counted: bool) -> None:
        log.warning("Worker %s: asked to stop again%s", self._worker.name, "" if counted else ", too soon to count")

    def _log_quiet(self) -> None:
        log.info("Worker %s: quiet, takes no new job", self._worker.name)

    def _tighten(self) -> None:
        """From now on no Redis command may hold the worker for long, whatever RQ set for its blocking ones."""
        seconds = tight_seconds(self._settings)
        pool = self._worker.connection.connection_pool
        pool.connection_kwargs.update(
            socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 1)
        )
        pool.disconnect(inuse_connections=False)
        pool.reset()  # Connections that it already has would go on with their old timeouts.

    def _log_stacks(self) -> None:
        frames = sys._current_frames().items()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        text = "\n".join(
            f"Thread {ident} ({names.get(ident, 'unknown')}):\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in frames
        )
        log.warning("Worker %s: stacks of the worker\n%s", self._worker.name, text)
        current_job = self._current_job()
        if current_job is not None and self._worker.horse_pid:
            log.warning("Worker %s: stacks of the work horse\n%s", self._worker.name, current_job.horse_stacks())
