"""The private names of RQ that we cannot do without: all of them, and only here. Read in RQ 2.6.1, 2.12 and 3.0.0."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import redis
from redis.exceptions import ResponseError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.queue import Queue
from rq.registry import StartedJobRegistry
from rq.scheduler import SCHEDULER_LOCKING_KEY_TEMPLATE
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY


def ordered_queues(worker: BaseWorker) -> list[Queue]:
    """The queues in the order in which the dequeue strategy wants them looked at now (``reorder_queues``)."""
    queues: list[Queue] = worker._ordered_queues
    return queues


def set_dequeue_strategy(worker: BaseWorker, strategy: Any) -> None:
    """What ``work()`` does with its argument of that name."""
    worker._dequeue_strategy = strategy


def set_horse_pid(worker: BaseWorker, pid: int) -> None:
    """What ``fork_work_horse`` has to leave behind, and ``monitor_work_horse`` sets to 0."""
    worker._horse_pid = pid


def stopped_by_user(worker: BaseWorker, job_id: str) -> bool:
    """Whether the ``stop-job`` command asked for this job's end (``handle_stop_job_command`` in rq/command.py)."""
    return bool(worker._stopped_job_id == job_id)


def scheduler_process(worker: BaseWorker) -> Any:
    """The child of ``--with-scheduler``, or None."""
    scheduler = worker.scheduler
    return scheduler._process if scheduler is not None else None


def scheduler_name(worker: BaseWorker) -> str:
    """What RQ 3 writes into the locks of this worker's scheduler; empty in 2.x, which writes a pid that says little."""
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
        return "?"  # The job's data cannot be read; RQ says so when it runs it.


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
    """Spare an execution from fetching its job once more (``Execution.job``)."""
    execution._job = job


def execution_key(execution: Execution) -> str:
    return str(execution.key)


def worker_executions_key(execution: Execution) -> str:
    """The index of a worker's executions; RQ 2.x before it keeps none, and any name will do."""
    return str(getattr(execution, "worker_executions_key", "graceful:none"))


def started_registry_key(origin: str, connection: redis.Redis) -> str:
    return str(StartedJobRegistry(origin, connection).key)


def latest_execution(connection: redis.Redis, job_id: str, origin: str, worker_name: str = "") -> Execution | None:
    """A job's latest execution, whatever of it has expired by now.

    RQ's ``ExecutionRegistry.get_executions`` raises ValueError where an execution's hash has expired and its place in
    the registry has not, which is so from 90 to 150 s after a worker's death (rq/executions.py, 2.6.1 to 3.0.0).

    Args:
        connection: a client of the server.
        job_id: the job.
        origin: the job's queue, whose started registry is looked at first.
        worker_name: name of the worker whose execution it is, for one of which only the id is left.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    found = _members(connection, started_registry_key(origin, connection))
    prefix = f"{job_id}:".encode()
    ids = [each.removeprefix(prefix) for each in found if each.startswith(prefix)]
    ids = [each for each in ids if b":" not in each]  # Ids of jobs may have colons in them.
    ids = ids or _members(connection, ExecutionRegistry(job_id, connection).key)
    if not ids:
        return None
    execution = Execution(ids[-1].decode("utf-8", "replace"), job_id, connection)
    try:
        execution.refresh()
    except (ValueError, KeyError, ResponseError):
        pass  # It has expired, or a late heartbeat has left only its time.
    if not getattr(execution, "worker_name", worker_name):
        execution.worker_name = worker_name
    return execution


REVENANT_SCRIPT = """
-- KEYS: started registry, execution, executions of the job. ARGV: composite id, execution id.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
"""


def _members(connection: redis.Redis, key: str) -> list[bytes]:
    """The members of a registry; none where the key is of another type."""
    try:
        found: Any = connection.zrange(key, 0, -1)
    except ResponseError:
        return []
    return list(found)


def remove_revenant(job: Job, execution: Execution) -> None:
    """Remove what a heartbeat has made anew of an execution that had just ended (``Execution.heartbeat``).

    With nothing but the time of its last heartbeat in it, RQ cannot read it, and in 2.x cannot delete the job.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    job.connection.eval(
        REVENANT_SCRIPT,
        3,
        started_registry_key(job.origin, job.connection),
        execution.key,
        ExecutionRegistry(job.id, job.connection).key,
        execution.composite_key,
        execution.id,
    )


def fail(worker: BaseWorker, job: Job, queue: Queue, reason: str, execution: Execution | None) -> None:
    """Fail a job on RQ's own way: retries, failed registry, dependents, rate limit slot.

    ``handle_job_failure`` takes the execution as an argument in 3.x, from the worker in 2.x.
    """
    arguments: dict[str, Any] = {"queue": queue, "exc_string": reason}
    # RQ's own method is asked: one that overrides it may take its arguments as **kwargs.
    if "execution" in inspect.signature(BaseWorker.handle_job_failure).parameters:
        arguments["execution"] = execution
        worker.handle_job_failure(job, **arguments)
        return
    # The job may be a dead worker's, and this one in the middle of another, whose heartbeats another thread sends:
    # the living worker is left as it is, and a copy of it is told the execution (``cleanup_execution`` forgets it).
    stand_in = copy.copy(worker)
    stand_in.execution = execution
    stand_in.handle_job_failure(job, **arguments)
    own = worker.execution
    if own is not None and execution is not None and own.id == execution.id:
        worker.execution = None
