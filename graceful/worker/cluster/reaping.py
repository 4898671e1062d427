"""The reaper of a process that is no worker (the admin's, ``archive_reports``), for where no worker lives.

It never unpickles a job: one that has to be failed, or may have to be, stays as it is until a worker starts.
"""

from __future__ import annotations

import uuid

import redis

from graceful.conf import Settings
from graceful.worker.cluster.heartbeat import look
from graceful.worker.cluster.reaper import Reaper


def reap(connection: redis.Redis, settings: Settings, name: str) -> int:
    """Close the reports of workers that are dead, and requeue their jobs.

    Args:
        connection: a client of the server that they are on; its timeouts bound the time that this takes.
        settings: the settings that hold.
        name: who does it, for the reports.

    Returns:
        how many reports were closed.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    return Reaper(connection, name, f"{name} {uuid.uuid4().hex}", settings).look(look(connection))
