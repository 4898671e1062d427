"""Requeueing a job: the one place that decides whether it counts as an interruption, and what becomes of the job.

Whoever finds a job that has to go back (the loop, the horse, a fetch, the reaper) says why. The job goes to the front
of its queue, or to the end where it has had its turn, in one step, which first looks whether it needs it and may be
repeated.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple

import redis
from rq.executions import Execution, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job

from graceful.conf import Settings
from graceful.core import attempts
from graceful.core.attempts import Attempt, AttemptEnd
from graceful.core.phases import JobOutcome
from graceful.reports.set_aside import Script
from graceful.worker.compat import rq_private
from graceful.worker.queue.fetch import HOLDERS_KEY
from graceful.worker.queue.lua import APPENDED, ASK, WHOLE

INTERRUPTIONS_FIELD = "graceful_interruptions"
"""In the job's hash; RQ leaves fields alone that it does not know (``Job.save`` is an HSET)."""
# Another field, which job_store.py writes, says how many there were when the job last got on: a long job that goes on
# where it was is not to fail for being interrupted by many deploys, only for getting nowhere between them.

ATTEMPTS_FIELD = "graceful_attempts"
"""In the job's hash too: how each attempt that counts has ended (:mod:`graceful.core.attempts`)."""
POISON_KEY = "graceful:poison"
"""Sorted set: ids of the jobs that were interrupted too often, by the server's time; the newest of them."""
MOST_POISON = 1000

NOT_ONCE = -1
"""As the most interruptions that are allowed: the job is taken out of all places, and not requeued."""


class Why(Enum):
    """Why a job that was taken has to go back to its queue."""

    NOT_STARTED = auto()
    """Nothing of it was done: the worker stops, or its horse could not begin. Does not count as an interruption."""
    CANNOT_START = auto()
    """Its horse could not begin, as several before it; counts, so that this does not go on for ever."""
    INTERRUPTED = auto()
    """``JobInterrupted`` was raised in it."""
    KILLED = auto()
    """It was killed at the hard limit."""
    CUT_OFF = auto()
    """Its worker could not see it to its end, because of an error of its own or of Redis."""
    WORKER_DIED = auto()
    """Its worker died while the job ran."""
    YIELDED = auto()
    """It has run for its ``max_runtime``: others first. Does not count, and goes to the end of the queue."""

    def outcome(self) -> JobOutcome:
        """What the report says of a job that was requeued for this."""
        if self in (Why.NOT_STARTED, Why.CANNOT_START, Why.CUT_OFF):
            return JobOutcome.RETURNED
        return JobOutcome.INTERRUPTED if self in (Why.INTERRUPTED, Why.YIELDED) else JobOutcome.KILLED

    @property
    def counts(self) -> bool:
        """Whether this counts as an interruption of the job."""
        return self not in (Why.NOT_STARTED, Why.YIELDED)

    @property
    def attempt_end(self) -> AttemptEnd | None:
        """How the attempt ended that this counts; None if it counts none."""
        return AttemptEnd[self.name] if self.counts else None


class HeldJob(NamedTuple):
    """A job that a worker holds.

    Args:
        worker_id: id of the worker that holds it.
        id: the job. Nothing of it is unpickled.
        origin: the queue that the job says it belongs to, in whose registries it is.
        queue_key: key of the queue that it came from.
        execution: its execution, if it got that far.
    """

    worker_id: str
    id: str
    origin: str
    queue_key: str
    execution: Execution | None = None


REQUEUE_SCRIPT = (
    ASK
    + WHOLE
    + APPENDED
    + """
-- KEYS: queue, intermediate queue, first seen, job, started registry, executions of the job, execution, of the worker,
-- holders, scheduled registry and poison jobs. ARGV: job id, composite id of the execution (or ''), execution id, field
-- to count in (or ''), most that is allowed, id of the worker that holds it, how this attempt has ended (or ''), how
-- many attempts are kept, how many poison jobs are, the command that puts it into the queue (RPUSH: at the end).
local holder = redis.call('HGET', KEYS[9], ARGV[1])
redis.call('LLEN', KEYS[1])
-- A job that is no hash can be run by nobody: it is gone.
local status = ask('HGET', KEYS[4], 'status')
if status == 'scheduled' and not ask('ZSCORE', KEYS[10], ARGV[1]) then
  -- RQ sets the status of a job that is to be retried later before it schedules it, in two steps (Job.retry): its
  -- process ended in between.
  status = 'started'
end
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
local counts, again = false, false
local attempts = ask('HGET', KEYS[4], 'graceful_attempts')
if not status then
  found = 'gone'
elseif status ~= 'started' and status ~= 'queued' then
  found = status
elseif in_queue then
  found = 'in its queue'
else
  counts = ARGV[4] ~= ''
  -- Whoever was to fail it may have died over it: the next one does not count it again.
  again = redis.call('HGET', KEYS[4], 'graceful_interrupted_in') == ARGV[6]
  if counts and not again then
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
  if ARGV[7] ~= '' and not again then
    redis.call('HSET', KEYS[4], 'graceful_attempts', appended(attempts, ARGV[7], tonumber(ARGV[8])))
  end
end
if too_many then
  if tonumber(ARGV[5]) >= 0 then
    redis.pcall('ZADD', KEYS[11], redis.call('TIME')[1], ARGV[1])
    redis.pcall('ZREMRANGEBYRANK', KEYS[11], 0, -1 - tonumber(ARGV[9]))
  end
  -- It stays held until it has been failed.
  redis.call('HSET', KEYS[4], 'graceful_interrupted_in', ARGV[6])
  return {found, count}
end
redis.call('HDEL', KEYS[9], ARGV[1])
if requeue then
  redis.call('HSET', KEYS[4], 'status', 'queued')
  redis.call('HDEL', KEYS[4], 'worker_name')
  redis.call('PERSIST', KEYS[4])
  redis.call(ARGV[10], KEYS[1], ARGV[1])
end
return {found, count}
"""
)


class Requeued(NamedTuple):
    """What the step found and did.

    Args:
        found: ``"not held"`` (it is not, or no more, held by this worker), ``"given back"`` (it was requeued),
            ``"too many"`` (it was taken out for good: fail it), ``"in its queue"`` (it already was), ``"gone"`` (the
            job was deleted), or the status that the job had reached by itself.
        interruptions: how often shutdowns have interrupted the job, this time included.
        by_policy: where it has to be failed: because it is not to be requeued at all, rather than for the number.
    """

    found: str
    interruptions: int
    by_policy: bool = False

    @property
    def back(self) -> bool:
        return self.found in ("given back", "in its queue")

    @property
    def must_fail(self) -> bool:
        return self.found == "too many"

    def outcome(self, why: Why) -> JobOutcome:
        """What the report says of the job, unless it has to be failed."""
        # Where it is not held any more a first try had worked, and its reply was lost.
        if self.back or self.found == "not held":
            return why.outcome()
        if self.found in ("gone", "canceled"):
            # The job, or a user, has cancelled or deleted it while it ran.
            return JobOutcome.CANCELED
        return JobOutcome.FINISHED if self.found == "finished" else JobOutcome.FAILED


def requeue(
    connection: redis.Redis,
    held: HeldJob,
    why: Why,
    settings: Settings,
    *,
    policy: str | None = None,
    attempt: Attempt | None = None,
) -> Requeued:
    """Take a job out of every place that says it is in flight, and put it at the front of its queue, or at the end.

    Nothing happens if it is not held any more by the worker that ``held`` names.

    Args:
        connection: a client of the server.
        held: the job.
        why: why it goes back.
        settings: ``GRACEFUL_INTERRUPTED_JOBS`` and ``GRACEFUL_MAX_INTERRUPTIONS``.
        policy: ``"requeue"`` or ``"fail"``, where the job says so itself.
        attempt: what is known of how it ended; kept with the job if this counts.

    Raises:
        redis.exceptions.RedisError: Redis did not answer, or refused; nothing or all of it has happened.
    """
    counts = why.counts
    fails = counts and why is not Why.CANNOT_START and (policy or settings.interrupted_jobs) == "fail"
    most = NOT_ONCE if fails else settings.max_interruptions
    intermediate = IntermediateQueue(held.queue_key, connection)
    execution = held.execution
    reply: Any = Script(connection, REQUEUE_SCRIPT)(
        keys=[
            held.queue_key,
            intermediate.key,
            intermediate.get_first_seen_key(held.id),
            Job.key_for(held.id),
            rq_private.started_registry_key(held.origin, connection),
            ExecutionRegistry(held.id, connection).key,
            rq_private.execution_key(execution) if execution else "graceful:none",
            rq_private.worker_executions_key(execution) if execution else "graceful:none",
            HOLDERS_KEY,
            rq_private.scheduled_registry_key(held.origin, connection),
            POISON_KEY,
        ],
        args=[
            held.id,
            execution.composite_key if execution else "",
            execution.id if execution else "",
            INTERRUPTIONS_FIELD if counts else "",
            most if counts else 0,
            held.worker_id,
            attempts.dump(attempt) if attempt else "",
            attempts.MOST_ATTEMPTS,
            MOST_POISON,
            "RPUSH" if why is Why.YIELDED else "LPUSH",
        ],
    )
    found, interruptions = reply
    # A status that is no text is none of RQ's, and one that the job reached by itself.
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return Requeued(text, int(interruptions), by_policy=fails)
