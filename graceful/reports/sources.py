"""Where reports wait to be archived: the journals on the servers of all queues, and this machine's spool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.db import connections
from django_rq import get_connection
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.reports import log
from graceful.reports.archive import ReportSource, archive_pending_or_raise
from graceful.reports.journal import Journal
from graceful.reports.resumed import move
from graceful.reports.rollup import roll_up
from graceful.reports.spool import Spool

PAUSE_SECONDS = 30.0
"""After an attempt that found a server unreachable or took too long, pages do not try again for so long."""
PAGE_ROLL_UP_SECONDS = 2.0
"""How long a page's thread adds up reports at most; the page does not wait for that."""
PAGE_ROLL_UP_WAIT_SECONDS = 0.1
"""For so long it does, so that what was archived just now is in the trends."""
PAGE_ROLL_UP_REPORTS = 500

NO_PART_OF_A_CONNECTION = frozenset(
    {"DEFAULT_TIMEOUT", "DEFAULT_RESULT_TTL", "ASYNC", "AUTOCOMMIT", "COMMIT_MODE", "QUEUE_CLASS", "SERIALIZER"}
)
"""Keys of django-rq's queue settings that do not describe the server (django-rq 4.0 to 4.2)."""

logger = logging.getLogger("graceful.reports")


def queue_of_each_server() -> list[str]:
    """The first queue on each server that ``RQ_QUEUES`` names, by the alphabet."""
    found: list[str] = []
    seen: list[dict[str, Any]] = []
    for name, config in sorted(getattr(django_settings, "RQ_QUEUES", {}).items()):
        server = {key: value for key, value in config.items() if key not in NO_PART_OF_A_CONNECTION}
        if server not in seen:
            seen.append(server)
            found.append(name)
    return found


def journals(seconds: float) -> list[Journal]:
    """The journal of each server that ``RQ_QUEUES`` names, once per server.

    Args:
        seconds: for all servers; connecting and each command may take an equal share, and there is no retry.
    """
    queue_of = queue_of_each_server()
    share = max(0.01, seconds / (len(queue_of) + 1))
    return [Journal(_with_timeout(get_connection(name), share)) for name in queue_of]


class ArchiveRun(NamedTuple):
    """What one run over all sources did.

    Args:
        archived: how many reports were archived.
        failures: each source that was unreachable, and why.
        closed: how many reports of dead workers were closed.
    """

    archived: int
    failures: tuple[str, ...]
    closed: int = 0


def archive_everything(seconds: float, reap: Callable[[Redis], int] | None = None) -> ArchiveRun:
    """Archive what waits in all journals and in the spool. Never raises.

    Args:
        seconds: for all of them; an unreachable server takes at most an equal share.
        reap: closes the reports of dead workers on a server, and returns how many there were
            (:func:`graceful.worker.cluster.reaper.reap`; reports must not import the worker).
    """
    deadline = Deadline.after(seconds)
    archived = closed = 0
    failures: list[str] = []
    try:
        sources: list[ReportSource] = [Spool(settings().spool_dir), *journals(seconds)]
    except Exception as error:  # wrong queue settings can raise anything
        return ArchiveRun(0, (f"the settings: {error}",))
    for place, source in enumerate(sources):
        try:
            if reap is not None and isinstance(source, Journal):
                closed += reap(source.connection)
            archived += archive_pending_or_raise(source, deadline.left() / (len(sources) - place))
            if isinstance(source, Journal):
                move(source.connection, deadline.left() / (len(sources) - place))
        except (RedisError, OSError) as error:
            failures.append(f"{source}: {error}")
        finally:
            if isinstance(source, Journal):
                source.connection.close()
    return ArchiveRun(archived, tuple(failures), closed)


class PageArchiver:
    """Archives reports while a page waits: one run at a time, and a pause after one that failed."""

    def __init__(self) -> None:
        self.paused_until = 0.0
        self._running = Lock()

    def run(self, seconds: float, reap: Callable[[Redis], int] | None = None) -> bool:
        """As :func:`archive_everything`, for at most ``seconds``; whether all was done in time. Never raises."""
        if time.monotonic() < self.paused_until or not self._running.acquire(blocking=False):
            return False
        archived = Event()
        thread = Thread(target=self._run, args=(seconds, reap, archived), name="graceful-page-archiver", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started
            self._running.release()
            return False
        if not archived.wait(seconds):
            return False
        thread.join(PAGE_ROLL_UP_WAIT_SECONDS)
        return time.monotonic() >= self.paused_until

    def _run(self, seconds: float, reap: Callable[[Redis], int] | None, archived: Event) -> None:
        started = time.monotonic()
        try:
            failures = archive_everything(seconds, reap).failures
            if failures or time.monotonic() - started > seconds:
                self.paused_until = time.monotonic() + PAUSE_SECONDS
                # Not a warning: whatever depends on the server reports that itself.
                logger.info(log.PAGE_NOT_ARCHIVED, "; ".join(failures) or "too slow")
            archived.set()
            roll_up(PAGE_ROLL_UP_SECONDS, PAGE_ROLL_UP_REPORTS)
        finally:
            connections.close_all()  # This thread's own.
            self._running.release()


page_archiver = PageArchiver()


def _with_timeout(connection: Redis, timeout: float) -> Redis:
    """A client of the same server with short timeouts and no retry; a pool of another class is used as it is."""
    pool: Any = connection.connection_pool
    if type(pool) is not ConnectionPool:
        return connection
    options = {
        **pool.connection_kwargs,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    return Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **options))
