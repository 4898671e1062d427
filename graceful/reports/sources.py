"""Everywhere that reports wait for the archive: the journals of all queues' servers, and this machine's spool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from django.conf import settings as django_settings
from django_rq import get_connection
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.reports.archive import Holder, archive_pending_or_raise
from graceful.reports.journal import Journal
from graceful.reports.spool import Spool

REST_SECONDS = 30.0
"""A page does not try again for so long after a visit that found a server away or took too long."""

NO_PART_OF_A_CONNECTION = frozenset(
    {"DEFAULT_TIMEOUT", "DEFAULT_RESULT_TTL", "ASYNC", "AUTOCOMMIT", "COMMIT_MODE", "QUEUE_CLASS", "SERIALIZER"}
)
"""Keys of django-rq's queue settings that say nothing of the server (django-rq 4.0 to 4.2)."""

logger = logging.getLogger("graceful.reports")


def journals(seconds: float) -> list[Journal]:
    """The journal of each server that ``RQ_QUEUES`` names, once per server.

    Args:
        seconds: for all servers; connecting and each command may take an equal share, and there is no second try.
    """
    queue_of: list[str] = []
    seen: list[dict[str, Any]] = []
    for name, config in sorted(getattr(django_settings, "RQ_QUEUES", {}).items()):
        server = {key: value for key, value in config.items() if key not in NO_PART_OF_A_CONNECTION}
        if server not in seen:
            seen.append(server)
            queue_of.append(name)
    share = max(0.01, seconds / (len(queue_of) + 1))
    return [Journal(_impatient(get_connection(name), share)) for name in queue_of]


@dataclass(frozen=True, slots=True)
class Homecoming:
    """What came of bringing reports home.

    Args:
        brought: how many reports are in the archive now.
        failures: in words, each place that could not be reached and why.
        closed: how many reports of dead workers were closed.
    """

    brought: int
    failures: tuple[str, ...]
    closed: int = 0


def bring_all_home(seconds: float, reap: Callable[[Redis], int] | None = None) -> Homecoming:
    """Archive what waits in all journals and in the spool. Never raises.

    Args:
        seconds: for all of them; a server that does not answer takes at most an equal share.
        reap: closes the reports of dead workers on a server, and says how many there were
            (:func:`graceful.worker.cluster.reaping.reap`, which this room does not know).
    """
    deadline = Deadline.after(seconds)
    brought = closed = 0
    failures: list[str] = []
    try:
        holders: list[Holder] = [Spool(settings().spool_dir), *journals(seconds)]
    except Exception as error:  # wrong settings of queues or of ours raise anything
        return Homecoming(0, (f"the settings: {error}",))
    for place, holder in enumerate(holders):
        try:
            if reap is not None and isinstance(holder, Journal):
                closed += reap(holder.connection)
            brought += archive_pending_or_raise(holder, deadline.left() / (len(holders) - place))
        except (RedisError, OSError) as error:
            failures.append(f"{holder}: {error}")
        finally:
            if isinstance(holder, Journal):
                holder.connection.close()
    return Homecoming(brought, tuple(failures), closed)


class Visits:
    """Bringing reports home while somebody waits for a page: one at a time, and none for a while after a bad one."""

    def __init__(self) -> None:
        self.rest_until = 0.0
        self._under_way = Lock()

    def pay(self, seconds: float, reap: Callable[[Redis], int] | None = None) -> bool:
        """As :func:`bring_all_home`, for at most ``seconds``; returns whether all was reached in time. Never raises."""
        if time.monotonic() < self.rest_until or not self._under_way.acquire(blocking=False):
            return False
        visit = Thread(target=self._visit, args=(seconds, reap), name="graceful-visit", daemon=True)
        try:
            visit.start()
        except RuntimeError:  # no thread to be had
            self._under_way.release()
            return False
        visit.join(seconds)
        return not visit.is_alive() and time.monotonic() >= self.rest_until

    def _visit(self, seconds: float, reap: Callable[[Redis], int] | None) -> None:
        started = time.monotonic()
        try:
            failures = bring_all_home(seconds, reap).failures
            if failures or time.monotonic() - started > seconds:
                self.rest_until = time.monotonic() + REST_SECONDS
                # Not a warning: whoever depends on what is away says so, and says it louder.
                logger.info("Waiting shutdown reports were not reached: %s", "; ".join(failures) or "too slow")
        finally:
            self._under_way.release()


visits = Visits()


def _impatient(connection: Redis, timeout: float) -> Redis:
    """A client of the same server that gives up early; a pool that is not of the plain kind is used as it is."""
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
