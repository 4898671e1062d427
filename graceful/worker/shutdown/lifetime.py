"""One worker's life as the report tells it: what is known is written ahead, and sealed at the end."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from graceful import signals
from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.phases import JobOutcome, Phase, Reason, later
from graceful.core.policy import exit_code_of, outcome_of
from graceful.core.records import HookResult, InFlightJob, Shutdown, ShutdownReport, Spans, utc_now
from graceful.reports import archive
from graceful.reports.line import log_shutdown
from graceful.reports.spool import Spool
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.shutdown.exit import bounded, started
from graceful.worker.shutdown.journal_writer import JournalWriter

log = logging.getLogger("graceful.worker")
JOURNAL_SECONDS = 1.0
RESERVE_SECONDS = 0.15
"""Kept behind the database, for the log line and the way out."""


class Lifetime:
    """Keeps the report of one worker, from its start to its end.

    The report is a frozen record; each change makes a new one under a lock, because a hook that cannot be ended
    makes a second thread go on in the main thread's place.

    Args:
        worker: the worker's name.
        queues: names of its queues.
        worker_class: dotted path of its class.
        settings: the settings that hold for it.
        journal_writer: writes the report ahead.
    """

    def __init__(
        self, worker: str, queues: tuple[str, ...], worker_class: str, settings: Settings, journal_writer: JournalWriter
    ) -> None:
        self.settings = settings
        self.redis_away = False
        self._journal_writer = journal_writer
        self._lock = threading.RLock()
        self._finished = False
        self._requested_at: float | None = None
        self._drained_at: float | None = None
        self._opened = False
        self.report = ShutdownReport(
            id=uuid4().hex,
            worker=worker,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            queues=queues,
            worker_class=worker_class,
            release=settings.release,
            started_at=utc_now(),
        )

    def change(self, **changes: Any) -> None:
        """Replace fields of the report; a phase never goes back."""
        with self._lock:
            if "phase" in changes:
                changes["phase"] = later(changes["phase"], self.report.phase)
            self.report = replace(self.report, **changes)

    def open(self) -> None:
        """Write the entry of a worker that is about to start.

        Raises:
            redis.exceptions.RedisError: Redis did not take it.
        """
        self._opened = True
        self._journal_writer.write(self.report)

    def post(self) -> None:
        """Write the report ahead, without waiting for Redis.

        Not where the start broke off before the first heartbeat: nobody would look for the entry of an unknown worker.
        """
        if self.redis_away or not self._opened:
            return
        try:
            self._journal_writer.post(self.report)
        except RedisError as error:
            log.warning("The journal of worker %s could not be written: %s", self.report.worker, error)
            self.redis_away = True

    def _write(self, seconds: float) -> bool:
        """Write the report, and wait at most so many seconds until Redis has it."""
        report = self.report
        doing = bounded(lambda: self._journal_writer.write(report), seconds)
        if doing.error is not None:
            log.warning("The journal of worker %s could not be written: %s", report.worker, doing.error)
        return doing.error is None

    def requested(self, reason: Reason, signal: str | None, at: float) -> None:
        """The shutdown was asked for, at the monotonic instant ``at``.

        All later instants of the report are counted from there by the monotonic clock: the wall clock may be set
        meanwhile.
        """
        with self._lock:
            self._requested_at = at
            shown = utc_now() - timedelta(seconds=time.monotonic() - at)
            shown = max(shown, self.report.started_at)
            self.change(phase=Phase.REQUESTED, reason=reason, signal=signal, requested_at=shown)

    def _instant(self, at: float) -> datetime:
        """What the report shows for a monotonic instant after the request."""
        if self._requested_at is None or self.report.requested_at is None:
            return utc_now()
        return self.report.requested_at + timedelta(seconds=at - self._requested_at)

    def tell_requested(self) -> None:
        """Tell the receivers of ``shutdown_requested``."""
        reason, signal = self.report.reason, self.report.signal
        signals.shutdown_requested.send_robust(sender=Lifetime, worker=self.report.worker, reason=reason, signal=signal)

    def job_met(self, job: InFlightJob) -> None:
        """A job is in hand at the shutdown, or more is known of it."""
        with self._lock:
            others = tuple(each for each in self.report.jobs.in_flight if each.id != job.id)
            self.change(jobs=replace(self.report.jobs, in_flight=(*others, job)))

    def job_ended(self, finished: bool) -> None:
        """Count a job that ended."""
        with self._lock:
            tally = self.report.jobs
            if finished:
                self.change(jobs=replace(tally, finished=tally.finished + 1))
            else:
                self.change(jobs=replace(tally, failed=tally.failed + 1))

    def drained(self) -> None:
        """The last job is gone and RQ's own teardown is over."""
        self._drained_at = time.monotonic()
        self.change(phase=Phase.DRAINED, drained_at=self._instant(self._drained_at))
        self.post()

    def hook_started(self, name: str) -> None:
        self.change(phase=Phase.HOOKS, notes=f"running the exit hook {name}")
        self.post()

    def hook_ended(self, result: HookResult) -> None:
        with self._lock:
            self.change(hooks=(*self.report.hooks, result), notes="")

    def shutdown(self, deadline: Deadline) -> Shutdown:
        """What a hook is told, with its own deadline."""
        report = self.report
        return Shutdown(
            reason=report.reason or Reason.ERROR,
            signal=report.signal,
            worker=report.worker,
            queues=report.queues,
            jobs=report.jobs,
            deadline=deadline,
        )

    def seal(self, *, forced: str = "") -> int:
        """Complete the report, unless that is done already.

        Args:
            forced: why the end had to be forced; empty if it came by itself.

        Returns:
            the exit code.
        """
        with self._lock:
            report = self.report
            if report.exit_code is not None:
                return report.exit_code
            now, drained = time.monotonic(), self._drained_at
            requested = now if self._requested_at is None else self._requested_at
            ended_at = self._instant(now)
            reason = report.reason or Reason.ERROR
            unknown = tuple(
                replace(job, outcome=JobOutcome.UNKNOWN) if job.outcome is JobOutcome.RUNNING else job
                for job in report.jobs.in_flight
            )
            outcome = outcome_of(reason, report.hooks, unknown, forced=bool(forced))
            self.change(
                phase=Phase.SEALED,
                reason=reason,
                outcome=outcome,
                exit_code=exit_code_of(reason, outcome, report.hooks),
                requested_at=report.requested_at or ended_at,
                ended_at=ended_at,
                jobs=replace(report.jobs, in_flight=unknown),
                notes=forced or report.notes,
                seconds=Spans(
                    drain=None if drained is None else drained - requested,
                    hooks=None if drained is None else now - drained,
                    total=now - requested,
                ),
            )
            return self.report.exit_code or 0

    @property
    def kept(self) -> bool:
        """Whether the sealed report is stored, or about to be."""
        return self._finished

    def keep(self, deadline: Deadline, heartbeat: Heartbeat, *, empty_handed: bool) -> None:
        """Bring the sealed report to where it stays: database, else Redis, else a file, else one line on stderr.

        Args:
            deadline: the instant by which this must be over.
            heartbeat: what Redis knows of the worker; it is taken back.
            empty_handed: whether nothing is left in the worker's hands. Otherwise its heartbeat stays, and a reaper
                gives back what it held.
        """
        with self._lock:
            if self._finished:
                return
            self._finished = True
        report = self.report
        # Half of the time for Redis, so that a hanging one leaves the database its chance.
        journaled = self._write(min(JOURNAL_SECONDS, deadline.left() / 2))
        archived = archive.store(report, seconds=max(0.05, deadline.left() - RESERVE_SECONDS))
        if journaled:  # Otherwise somebody may still stand in it, and hold its lock.
            self._journal_writer.close()
        if journaled and empty_handed:
            bounded(lambda: heartbeat.leave(archived=archived), min(JOURNAL_SECONDS, deadline.left()))
        elif not journaled and not archived:
            Spool(self.settings.spool_dir).write(report)
        log_shutdown(report)
        signals.shutdown_finished.send_robust(sender=Lifetime, report=report)


class Guardian:
    """The thread that ends the process when the main thread does not come to the end by itself.

    It is the last resort but one: it still needs the GIL, and still writes the report. Behind it stands
    :mod:`graceful.hooks.watchdog`, which needs nothing and can do nothing but end the process.

    Args:
        take_over: called with the reason, in the guardian's thread; never returns.
    """

    def __init__(self, take_over: Callable[[str], object]) -> None:
        self._take_over = take_over
        self._changed = threading.Condition()
        self._deadline: Deadline | None = None
        self._dismissed = False
        self._took_over = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start its thread, while there still are threads to be had."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="graceful-guardian", daemon=True)
                self._thread = started(thread)

    def expect(self, deadline: Deadline) -> None:
        """The main thread must have called :meth:`dismiss` by then."""
        with self._changed:
            self._deadline = deadline
            self._changed.notify()
        self.start()

    def dismiss(self) -> bool:
        """All is over in time; the guardian goes.

        Returns:
            False where it has taken over already, and ends the process.
        """
        with self._changed:
            self._dismissed = True
            self._changed.notify()
            return not self._took_over

    def _watch(self) -> None:
        with self._changed:
            while not self._dismissed and (self._deadline is None or not self._deadline.expired):
                self._changed.wait(None if self._deadline is None else self._deadline.left())
            if self._dismissed:
                return
            self._took_over = True
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        self._take_over(f"the main thread did not come to its end; it stood at:\n{stack}")
