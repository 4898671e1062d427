"""A horse that is a newly started interpreter.

RQ's ``SpawnWorker`` writes a program with the connection's settings in it on the command line, where everybody on the
machine can read the password, and does not set Django up (``SpawnWorker.fork_work_horse``, read in 2.6.1 to 3.0.0).
Here the settings go through a file without a name.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import Any

import redis
from django_rq import get_connection
from redis.sentinel import Sentinel, SentinelConnectionPool
from rq.job import Job
from rq.queue import Queue

from graceful.jobs.shared_memory import unnamed_file
from graceful.worker.at_work import at_work
from graceful.worker.compat import rq_private
from graceful.worker.shutdown import os_signals
from graceful.worker.worker import GracefulMixin

CHILD = """import sys
sys.path[:] = {path!r}
import django
django.setup()
from graceful.worker.horse.spawned import main
main({descriptor})
"""
ATTRIBUTES = (
    "job_class",
    "queue_class",
    "death_penalty_class",
    "default_result_ttl",
    "job_monitoring_interval",
    "log_job_description",
    "log_result_lifespan",
    "disable_default_exception_handler",
)


class SpawnMixin(GracefulMixin):
    """:class:`GracefulMixin` for worker classes that start an interpreter for each job."""

    graceful_over: type | None = None

    @at_work
    def _dump_worker_config(self) -> bytes:
        """RQ's check that its horse could be told of this worker; ours is told in another way."""
        return b""

    @at_work
    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Start the horse; signals are held back in it until it has its own handlers."""
        os.environ["RQ_WORKER_ID"] = self.name
        os.environ["RQ_JOB_ID"] = job.id
        assert self.execution is not None
        execution_id = self.execution.id
        os.environ["RQ_EXECUTION_ID"] = execution_id
        letter = pickle.dumps(
            {
                "worker_class": self.graceful_over or type(self),
                "worker_key": self.key,
                "serializer": self.serializer,
                "attributes": {name: getattr(self, name) for name in ATTRIBUTES if hasattr(self, name)},
                "exception_handlers": rq_private.exception_handlers(self),
                "connection": describe(self.connection, queue.name),
                "job": job.id,
                "queue": queue.name,
                "execution": execution_id,
                "worker_id": self.worker_id,
                "memory": self._at_work.memory.memory,
                "stacks": self._at_work.memory.stacks,
            }
        )
        with os.fdopen(unnamed_file(), "w+b") as file, os_signals.blocked():
            file.write(letter)
            file.flush()
            descriptors = (file.fileno(), self._at_work.memory.memory, self._at_work.memory.stacks)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            source = CHILD.format(path=sys.path, descriptor=file.fileno())
            pid = os.posix_spawn(sys.executable, [sys.executable, "-c", source], os.environ, setpgroup=0)
        rq_private.set_horse_pid(self, pid)
        self.procline(f"Spawned {pid} at {time.time()}")


def describe(connection: redis.Redis, queue: str) -> dict[str, Any]:
    """All that another process needs to make the same connection, in a form that can be pickled.

    Args:
        connection: the worker's client.
        queue: a queue on it. If the connection has a credential provider that cannot be pickled, for instance because
            it has a lock, the horse makes the connection anew from this queue's settings in ``RQ_QUEUES``.
    """
    pool = connection.connection_pool
    sentinels = getattr(pool, "sentinel_manager", None)
    if _has_private_credentials(sentinels.connection_kwargs if sentinels else pool.connection_kwargs):
        return {"queue": queue}
    described: dict[str, Any] = {"class": type(connection)}
    if isinstance(pool, SentinelConnectionPool):
        manager = pool.sentinel_manager
        nodes = [_picklable(node.connection_pool.connection_kwargs) for node in manager.sentinels]
        return described | {
            "service": pool.service_name,
            "is_master": pool.is_master,
            "nodes": [(node["host"], node["port"]) for node in nodes],
            "sentinel_kwargs": _picklable(manager.sentinel_kwargs),
            "kwargs": _picklable(manager.connection_kwargs),
        }
    return described | {"connection_class": pool.connection_class, "kwargs": _picklable(pool.connection_kwargs)}


def connect(described: dict[str, Any]) -> redis.Redis:
    """The connection that :func:`describe` described."""
    if "queue" in described:
        return get_connection(described["queue"])
    if "service" in described:
        sentinel = Sentinel(described["nodes"], sentinel_kwargs=described["sentinel_kwargs"], **described["kwargs"])
        find = sentinel.master_for if described["is_master"] else sentinel.slave_for
        client: redis.Redis = find(described["service"], redis_class=described["class"])
        return client
    pool = redis.ConnectionPool(connection_class=described["connection_class"], **described["kwargs"])
    made: redis.Redis = described["class"](connection_pool=pool)
    return made


def _has_private_credentials(kwargs: dict[str, Any]) -> bool:
    provider = {"credential_provider": kwargs.get("credential_provider")}
    return _picklable(provider) != provider


def _picklable(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what only means something in this process: locks, retry objects, sentinels of type ``object``."""
    kept = {}
    for name, value in kwargs.items():
        if type(value) is object:
            continue
        try:
            pickle.dumps(value)
        except Exception:
            continue
        kept[name] = value
    return kept
