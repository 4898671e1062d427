"""Putting a job back at the front of its queue, in one step that first looks whether the job needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from rq.executions import Execution, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.worker import BaseWorker

from graceful.core.phases import JobOutcome
from graceful.reports.set_aside import Script
from graceful.worker.compat import rq_private
from graceful.worker.queue.fetch import HOLDERS_KEY
from graceful.worker.queue.lua import ASK, WHOLE

INTERRUPTIONS_FIELD = "graceful_interruptions"
"""In the job's hash; RQ leaves fields alone that it does not know (``Job.save`` is an HSET)."""
# Another field, which job_store.py writes, says how many there were when the job last got on: a long job that goes on
# where it was is not to fail for being interrupted by many deploys, only for getting nowhere between them.

NOT_ONCE = -1
"""As the most interruptions that are allowed: the job is taken out of all places, and not put back."""

REQUEUE_SCRIPT = (
    ASK
    + WHOLE
    + """
-- KEYS: queue, intermediate queue, first seen, job, started registry, executions of the job, execution, of the worker
-- and holders. ARGV: job id, composite id of the execution (or ''), execution id, field to count in (or ''), most that
-- is allowed, life of the worker that holds it.
local holder = redis.call('HGET', KEYS[9], ARGV[1])
redis.call('LLEN', KEYS[1])
-- A job that is no hash can be run by nobody: it is gone.
local status = ask('HGET', KEYS[4], 'status')
local count = whole(ask('HGET', KEYS[4], 'graceful_interruptions'))
local before_progress = whole(ask('HGET', KEYS[4], 'graceful_interruptions_before_progress'))
if before_progress > count then
  before_progress = 0
end
local in_queue = status == 'queued' and redis.call('LPOS', KEYS[1], ARGV[1])
if holder ~= ARGV[6] then
  -- Also what a second try finds, if the first one worked and its reply was lost.
  return {in_queue and 'in its queue' or 'not held', count}
end
local found, requeue, too_many
local counts = false
if not status then
  found = 'gone'
elseif status ~= 'started' and status ~= 'queued' then
  found = status
elseif in_queue then
  found = 'in its queue'
else
  counts = ARGV[4] ~= ''
  -- Whoever was to fail it may have died over it: the next one does not count it again.
  if counts and redis.call('HGET', KEYS[4], 'graceful_interrupted_in') ~= ARGV[6] then
    count = count + 1
  end
  too_many = counts and count - before_progress > tonumber(ARGV[5])
  requeue = not too_many
  found = too_many and 'too many' or 'given back'
end
-- All that can fail is behind us. What is of another type than RQ's has nothing of this job in it.
if ARGV[2] ~= '' then
  redis.pcall('ZREM', KEYS[5], ARGV[2])
  redis.pcall('ZREM', KEYS[6], ARGV[3])
  redis.call('DEL', KEYS[7])
  redis.pcall('SREM', KEYS[8], ARGV[2])
end
redis.pcall('LREM', KEYS[2], 0, ARGV[1])
redis.call('DEL', KEYS[3])
if counts then
  redis.call('HSET', KEYS[4], ARGV[4], string.format('%d', count))
end
if too_many then
  -- It stays held until it has been failed.
  redis.call('HSET', KEYS[4], 'graceful_interrupted_in', ARGV[6])
  return {found, count}
end
redis.call('HDEL', KEYS[9], ARGV[1])
if requeue then
  redis.call('HSET', KEYS[4], 'status', 'queued')
  redis.call('HDEL', KEYS[4], 'worker_name')
  redis.call('PERSIST', KEYS[4])
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return {found, count}
"""
)


@dataclass(frozen=True, slots=True)
class Requeued:
    """What the step found and did.

    Args:
        found: ``"not held"`` (it is not, or no more, in the hands of this life), ``"given back"``, ``"too many"``
            (nothing was pushed: fail it), ``"in its queue"`` (it already was), ``"gone"`` (the job was deleted), or
            the status that the job had reached by itself.
        interruptions: how often shutdowns have interrupted the job, this time included.
    """

    found: str
    interruptions: int

    @property
    def back(self) -> bool:
        return self.found in ("given back", "in its queue")

    @property
    def own_end(self) -> JobOutcome:
        """The end that a job had come to by itself; one that was deleted or cancelled has not finished."""
        return JobOutcome.FINISHED if self.found == "finished" else JobOutcome.FAILED

    @property
    def too_many(self) -> bool:
        return self.found == "too many"


def requeue(
    worker: BaseWorker,
    life: str,
    job: Job,
    queue_key: str,
    execution: Execution | None,
    max_interruptions: int | None = None,
) -> Requeued:
    """As :func:`requeue_unread`, of a job that has been read; its arguments are those."""
    return requeue_unread(worker.connection, life, job.id, job.origin, queue_key, execution, max_interruptions)


def requeue_unread(
    connection: redis.Redis,
    life: str,
    job_id: str,
    origin: str,
    queue_key: str,
    execution: Execution | None,
    max_interruptions: int | None,
) -> Requeued:
    """Take a job out of every place that says it is being worked on, and put it at the front of its queue.

    Args:
        connection: a client of the server.
        life: the life of the worker that holds the job; nothing happens if that one holds it no more.
        job_id: the job. Nothing of it is unpickled.
        origin: the queue that the job says it belongs to, in whose registries it is.
        queue_key: key of the queue that it came from.
        execution: its execution, if it got that far.
        max_interruptions: count this as an interruption, of which so many are allowed (:data:`NOT_ONCE`: none);
            None does not count it.

    Raises:
        redis.exceptions.RedisError: Redis did not answer, or refused; nothing or all of it has happened.
    """
    intermediate = IntermediateQueue(queue_key, connection)
    reply: Any = Script(connection, REQUEUE_SCRIPT)(
        keys=[
            queue_key,
            intermediate.key,
            intermediate.get_first_seen_key(job_id),
            Job.key_for(job_id),
            rq_private.started_registry_key(origin, connection),
            ExecutionRegistry(job_id, connection).key,
            rq_private.execution_key(execution) if execution else "graceful:none",
            rq_private.worker_executions_key(execution) if execution else "graceful:none",
            HOLDERS_KEY,
        ],
        args=[
            job_id,
            execution.composite_key if execution else "",
            execution.id if execution else "",
            INTERRUPTIONS_FIELD if max_interruptions is not None else "",
            max_interruptions or 0,
            life,
        ],
    )
    found, interruptions = reply
    # A status that is no text is none of RQ's, and one that the job reached by itself.
    return Requeued(found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found), int(interruptions))
