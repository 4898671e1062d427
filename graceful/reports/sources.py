"""Everywhere that reports wait for the archive: the journals of all queues' servers, and this machine's spool."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from django.conf import settings as django_settings
from django_rq import get_connection
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.reports.archive import Holder, bring_home
from graceful.reports.journal import Journal
from graceful.reports.spool import Spool

REST_SECONDS = 30.0
"""A page does not try again for so long after a visit that was not over in its time."""

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


def bring_all_home(seconds: float) -> int:
    """Archive what waits in all journals and in the spool. Never raises.

    Args:
        seconds: for all of them; a server that does not answer takes at most an equal share.

    Returns:
        How many reports were brought home.
    """
    deadline = Deadline.after(seconds)
    brought = 0
    try:
        holders: list[Holder] = [Spool(settings().spool_dir), *journals(seconds)]
    except Exception as error:
        # Wrong settings of queues or of ours raise anything; whoever called us has something else to do.
        logger.warning("Shutdown reports could not be brought home: %s", error)
        return 0
    for place, holder in enumerate(holders):
        share = deadline.left() / (len(holders) - place)
        brought += bring_home(holder, share)
        if isinstance(holder, Journal):
            holder.connection.close()
    return brought


@dataclass
class Visits:
    """Bringing reports home while somebody waits for a page: one at a time, and none for a while after a slow one."""

    rest_until: float = 0.0

    def __post_init__(self) -> None:
        self._under_way = Lock()

    def pay(self, seconds: float) -> bool:
        """Bring reports home, for at most ``seconds``; returns whether that was done in time. Never raises."""
        if time.monotonic() < self.rest_until or not self._under_way.acquire(blocking=False):
            return False
        visit = Thread(target=self._visit, args=(seconds,), name="graceful-visit", daemon=True)
        try:
            visit.start()
        except RuntimeError:  # no thread to be had
            self._under_way.release()
            return False
        visit.join(seconds)
        return not visit.is_alive() and time.monotonic() >= self.rest_until

    def _visit(self, seconds: float) -> None:
        started = time.monotonic()
        try:
            bring_all_home(seconds)
        finally:
            if time.monotonic() - started > seconds / 2:
                self.rest_until = time.monotonic() + REST_SECONDS
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
