"""The report of one worker: written ahead while it lives, stored at its end."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from redis.exceptions import RedisError

from graceful import signals
from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.records import ShutdownReport
from graceful.core.shutdown import State
from graceful.reports import archive, slots
from graceful.reports.builder import Clock, WorkerIdentity, report_of
from graceful.reports.line import log_shutdown
from graceful.reports.spool import Spool
from graceful.threads import bounded
from graceful.worker.cluster.heartbeat import Heartbeat
from graceful.worker.shutdown.journal_writer import JournalWriter

log = logging.getLogger("graceful.worker")
NOT_WRITTEN = "Worker %s: its journal entry could not be written: %s"
JOURNAL_SECONDS = 1.0
SHORT_SECONDS = 0.4
"""With less time than this the report is spooled before anybody else is asked to take it."""
RESERVE_SECONDS = 0.15
"""Kept behind the database, for the log line and the way out."""


class WorkerReport:
    """Writes and stores what the shutdown's state says.

    Args:
        worker: whose report it is.
        settings: the settings that hold for the worker.
        journal_writer: writes its entry in the journal.
        heartbeat: the worker's entries in Redis, which go once the report is stored.
    """

    def __init__(
        self, worker: WorkerIdentity, settings: Settings, journal_writer: JournalWriter, heartbeat: Heartbeat
    ) -> None:
        self.worker = worker
        self._settings = settings
        self._journal_writer = journal_writer
        self._heartbeat = heartbeat
        self._started = self._requested = Clock()
        self._opened = self._unreachable = False
        self._storing = threading.Lock()

    def of(self, state: State) -> ShutdownReport:
        """The report as it stands."""
        return report_of(state, self.worker, self._started, self._requested)

    def shutdown_begins(self) -> None:
        """From here on instants are counted from this reading of the clocks."""
        self._requested = Clock()

    def open(self, state: State) -> None:
        """Write the entry of a worker that is about to start.

        Raises:
            redis.exceptions.RedisError: Redis did not take it.
        """
        self._journal_writer.write(self.of(state))
        self._opened = True

    def write_ahead(self, state: State) -> None:
        """Write the report as it stands, without waiting for Redis.

        Not before :meth:`open`: without a heartbeat before it, nobody would close the entry of a worker that is killed.
        """
        if self._unreachable or not self._opened:
            return
        try:
            self._journal_writer.post(self.of(state))
        except RedisError as error:
            log.warning(NOT_WRITTEN, self.worker.name, error)
            self._unreachable = True

    def store(self, state: State, until: Deadline) -> None:
        """Store the sealed report: in the database, else in Redis, else in a file, else as one line on stderr.

        The worker's entries in Redis stay where it may still hold a job: the reaper requeues that.

        Args:
            state: the sealed state.
            until: when this must be over.
        """
        if not self._storing.acquire(blocking=False):
            return  # Another thread is at it.
        report, spool = self.of(state), Spool(self._settings.spool_dir)
        # The process may be ended while it waits for Redis or the database.
        spooled = until.left() < SHORT_SECONDS and spool.write(report, quiet=True)
        # Half of the time for Redis, so that a hanging one leaves the database its chance.
        writing = bounded(lambda: self._write(report, until), min(JOURNAL_SECONDS, until.left() / 2))
        if writing.error is not None:
            log.warning(NOT_WRITTEN, self.worker.name, writing.error)
        journaled = writing.error is None
        # Without Redis nobody else would archive it.
        may_connect = writing.value or not journaled
        archived = may_connect and archive.store(report, seconds=max(0.05, until.left() - RESERVE_SECONDS))
        if journaled:  # Otherwise a thread may still stand in it, and hold its lock.
            self._journal_writer.close()
        if journaled:
            leaves = state.holds_nothing
            bounded(lambda: self._leave(archived=archived, deregister=leaves), min(JOURNAL_SECONDS, until.left()))
        if not journaled and not archived:
            spool.write(report)
        elif spooled:
            with suppress(OSError):  # Then it is archived twice, which changes nothing.
                spool.remove(report.id)
        log_shutdown(report)
        signals.send(signals.shutdown_finished, WorkerReport, report=report)

    def _write(self, report: ShutdownReport, until: Deadline) -> bool:
        """Write the sealed report into the journal.

        Returns:
            whether it may be stored in the database from here, too.
        """
        self._journal_writer.write(report)
        most = self._settings.report_connections
        return slots.take(self._heartbeat.connection, report.id, most, max(1.0, until.left()))

    def _leave(self, *, archived: bool, deregister: bool) -> None:
        """Give the slot back, and remove the worker's entries where it holds no job."""
        if self._settings.report_connections is not None:
            slots.free(self._heartbeat.connection, self.worker.worker_id)
        if deregister:
            self._heartbeat.deregister(archived=archived)
