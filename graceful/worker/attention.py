"""What a worker does about what is asked of it: stop, be quiet, show the stacks."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.worker import BaseWorker

from graceful.conf import Settings
from graceful.core.phases import Phase, Reason
from graceful.core.records import utc_now
from graceful.jobs.channel import Channel
from graceful.worker import os_signals, rq_private
from graceful.worker.drain import STOPS, Drain
from graceful.worker.ending import Ending
from graceful.worker.in_hand import InHand
from graceful.worker.lifetime import Lifetime

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
        channel: the memory through which the job is told.
        lifetime: the report.
        ending: guards the grace period once it has begun.
        in_hand: the job in hand, or None.
    """

    def __init__(
        self,
        worker: BaseWorker,
        inbox: os_signals.Inbox,
        drain: Drain,
        settings: Settings,
        channel: Channel,
        lifetime: Lifetime,
        ending: Ending,
        in_hand: Callable[[], InHand | None],
    ) -> None:
        self._worker = worker
        self._inbox = inbox
        self._drain = drain
        self._settings = settings
        self._channel = channel
        self._lifetime = lifetime
        self._ending = ending
        self._in_hand = in_hand
        self._lock = threading.RLock()

    def attend(self) -> None:
        """Act upon what was asked for since the last time; at once if another thread is at that."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            while (received := self._inbox.next()) is not None:
                if received.name in STOPS:
                    first = self._drain.ask(received)
                    self._announce(first=first, at=received.at)
                    if not first:
                        why = "" if self._drain.counted else ", too soon to count"
                        log.warning("Worker %s: asked to stop again%s", self._worker.name, why)
                elif received.name == os_signals.QUIET_SIGNAL.name:
                    self._drain.quiet = True
                    log.info("Worker %s: quiet, takes no new job", self._worker.name)
                elif received.name == os_signals.STACKS_SIGNAL.name:
                    self._log_stacks()
        finally:
            self._lock.release()

    def stop(self, reason: Reason) -> None:
        """The worker has to come to its end, though nobody asked for it."""
        now = time.monotonic()
        self._announce(first=self._drain.begin(now, reason), at=now)

    def _announce(self, *, first: bool, at: float) -> None:
        limits = self._drain.limits
        assert limits is not None
        self._channel.announce(limits)
        if not first:
            return
        self._ending.guard(limits.end)
        self._tighten()
        asked_at = utc_now() - timedelta(seconds=time.monotonic() - at)
        self._lifetime.requested(self._drain.reason or Reason.SIGNAL, self._drain.signal, asked_at)
        in_hand = self._in_hand()
        if in_hand is not None:
            self._lifetime.change(phase=Phase.DRAINING)
            self._lifetime.job_met(in_hand.record)
        self._lifetime.post()
        process = rq_private.scheduler_process(self._worker)
        if process is not None and process.is_alive():
            process.terminate()
        # Only now: where nobody reads the log any more it may hold us for ever.
        log.info(
            "Worker %s [PID %d]: shutdown requested (%s), %.1f s left",
            self._worker.name,
            os.getpid(),
            self._drain.signal or self._drain.reason,
            limits.end.left(),
        )

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
        in_hand = self._in_hand()
        if in_hand is not None and self._worker.horse_pid:
            log.warning("Worker %s: stacks of the work horse\n%s", self._worker.name, in_hand.horse_stacks())
