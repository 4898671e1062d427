"""Every private name of RQ that we use, and the only place for them. Read in RQ 2.6.1, 2.12 and 3.0.0."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import redis
from redis.exceptions import ResponseError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.queue import Queue
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.scheduler import SCHEDULER_LOCKING_KEY_TEMPLATE
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY


def ordered_queues(worker: BaseWorker) -> list[Queue]:
    """The queues in the current order of the dequeue strategy (``reorder_queues``)."""
    queues: list[Queue] = worker._ordered_queues
    return queues


def set_dequeue_strategy(worker: BaseWorker, strategy: Any) -> None:
    """What ``work()`` does with its argument of that name."""
    worker._dequeue_strategy = strategy


def in_worker_pool() -> bool:
    """Whether this process is a worker that ``rq.worker_pool.WorkerPool`` has started (``get_worker_process``)."""
    return "(WorkerPool " in multiprocessing.current_process().name


def set_horse_pid(worker: BaseWorker, pid: int) -> None:
    """What ``fork_work_horse`` has to set, and ``monitor_work_horse`` resets to 0."""
    worker._horse_pid = pid


def stopped_by_user(worker: BaseWorker, job_id: str) -> bool:
    """Whether the ``stop-job`` command asked for this job's end (``handle_stop_job_command`` in rq/command.py)."""
    return bool(worker._stopped_job_id == job_id)


def scheduler_process(worker: BaseWorker) -> Any:
    """The child of ``--with-scheduler``, or None."""
    scheduler = worker.scheduler
    return scheduler._process if scheduler is not None else None


def scheduler_name(worker: BaseWorker) -> str:
    """What RQ 3 writes into the locks of this worker's scheduler; empty in 2.x, which writes only a pid."""
    return str(getattr(worker.scheduler, "name", "") or "")


def scheduler_keys(queue_names: Iterable[str], scheduler: str) -> tuple[str, ...]:
    """The locks of these queues, and last the hash of the scheduler itself (rq/scheduler.py, 3.0.0)."""
    return *(SCHEDULER_LOCKING_KEY_TEMPLATE % name for name in queue_names), f"rq:scheduler:{scheduler}"


def exception_handlers(worker: BaseWorker) -> list[Any]:
    handlers: list[Any] = worker._exc_handlers
    return handlers


def function_name(job: Job) -> str:
    """Dotted name of a job's function, without its arguments."""
    try:
        return str(job.func_name)
    except Exception:
        return "?"  # The job's data is unreadable; RQ reports that when it runs the job.


def worker_keys(name: str) -> tuple[str, ...]:
    """RQ's keys of a worker: its hash first (``BaseWorker.key``), then the index of its executions of RQ 3."""
    key = f"{BaseWorker.redis_worker_namespace_prefix}{name}"
    return key, f"{key}:executions"


def worker_registries(queue_names: Iterable[str]) -> tuple[str, ...]:
    """The sets in which workers are listed (rq/worker_registration.py)."""
    return REDIS_WORKER_KEYS, *(WORKERS_BY_QUEUE_KEY % name for name in queue_names)


def failure_callback(job: Job, death_penalty_class: type, *exc_info: Any) -> None:
    """Run a job's failure callback: a method of the job in 2.x, a function of ``rq.callbacks`` in 3.x."""
    if not job.failure_callback:
        return
    if hasattr(job, "execute_failure_callback"):
        job.execute_failure_callback(death_penalty_class, *exc_info)
    else:
        import_module("rq.callbacks").execute_failure_callback(job, death_penalty_class, *exc_info)


def set_job(execution: Execution, job: Job) -> None:
    """Give an execution its job, so that it does not fetch it again (``Execution.job``)."""
    execution._job = job


def execution_key(execution: Execution) -> str:
    return str(execution.key)


def worker_executions_key(execution: Execution) -> str:
    """The index of a worker's executions; RQ 2.x keeps none, and any name will do."""
    return str(getattr(execution, "worker_executions_key", "graceful:none"))


def is_over(job: Job, execution: Execution | None) -> bool:
    """Whether a run of a job is over as Redis knows it: it has succeeded, or somebody took the job away from it.

    The transaction that stores a success removes the execution (``BaseWorker.cleanup_execution``). The status says
    less: a job may repeat, be deleted at once for its ``result_ttl`` of 0, or have been cancelled since.

    Raises:
        redis.exceptions.RedisError: Redis cannot be asked.
    """
    status = job.connection.hget(job.key, "status")
    if status in (b"finished", None) or execution is None:
        return status in (b"finished", None)
    if status == b"started":
        return False
    key = started_registry_key(job.origin, job.connection)
    return job.connection.zscore(key, execution.composite_key) is None


def started_registry_key(origin: str, connection: redis.Redis) -> str:
    return str(StartedJobRegistry(origin, connection).key)


def scheduled_registry_key(origin: str, connection: redis.Redis) -> str:
    return str(ScheduledJobRegistry(origin, connection).key)


def failed_registry_key(origin: str, connection: redis.Redis) -> str:
    return str(FailedJobRegistry(origin, connection).key)


def latest_execution(connection: redis.Redis, job_id: str, origin: str, worker_name: str = "") -> Execution | None:
    """A job's latest execution, even if parts of it have expired.

    RQ's ``ExecutionRegistry.get_executions`` raises ValueError if an execution's hash has expired and its entry in the
    registry has not: from 90 to 150 s after a worker's death (rq/executions.py, 2.6.1 to 3.0.0).

    Args:
        connection: a client of the server.
        job_id: the job.
        origin: the job's queue, whose started registry is read first.
        worker_name: name of its worker, for an execution of which only the id is left.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    found = _members(connection, started_registry_key(origin, connection))
    prefix = f"{job_id}:".encode()
    ids = [each.removeprefix(prefix) for each in found if each.startswith(prefix)]
    ids = [each for each in ids if b":" not in each]  # Job ids may contain colons.
    ids = ids or _members(connection, ExecutionRegistry(job_id, connection).key)
    if not ids:
        return None
    execution = Execution(ids[-1].decode("utf-8", "replace"), job_id, connection)
    try:
        execution.refresh()
    except (ValueError, KeyError, ResponseError):
        pass  # It has expired, or a late heartbeat has left only a timestamp.
    if not getattr(execution, "worker_name", worker_name):
        execution.worker_name = worker_name
    return execution


STRAY_EXECUTION_SCRIPT = """
-- KEYS: started registry, execution, executions of the job. ARGV: composite id, execution id.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
"""


def _members(connection: redis.Redis, key: str) -> list[bytes]:
    """The members of a registry; none if the key has another type."""
    try:
        found: Any = connection.zrange(key, 0, -1)
    except ResponseError:
        return []
    return list(found)


def remove_stray_execution(job: Job, execution: Execution) -> None:
    """Remove an execution that a late heartbeat has recreated just after it ended (``Execution.heartbeat``).

    It holds nothing but the heartbeat's time: RQ cannot read it, and 2.x then cannot delete the job.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    job.connection.eval(
        STRAY_EXECUTION_SCRIPT,
        3,
        started_registry_key(job.origin, job.connection),
        execution.key,
        ExecutionRegistry(job.id, job.connection).key,
        execution.composite_key,
        execution.id,
    )


def fail(worker: BaseWorker, job: Job, queue: Queue, reason: str, execution: Execution | None) -> None:
    """Fail a job the way RQ does: retries, failed registry, dependents, rate limit slot.

    ``handle_job_failure`` takes the execution as an argument in 3.x, from the worker in 2.x.
    """
    arguments: dict[str, Any] = {"queue": queue, "exc_string": reason}
    # The signature of RQ's own method: an override may take **kwargs.
    if "execution" in inspect.signature(BaseWorker.handle_job_failure).parameters:
        arguments["execution"] = execution
        worker.handle_job_failure(job, **arguments)
        return
    # The job may be a dead worker's while this worker runs another one, whose heartbeats another thread sends. So the
    # execution is set on a copy of the worker (``cleanup_execution`` resets it).
    worker_copy = copy.copy(worker)
    worker_copy.execution = execution
    worker_copy.handle_job_failure(job, **arguments)
    own = worker.execution
    if own is not None and execution is not None and own.id == execution.id:
        worker.execution = None
