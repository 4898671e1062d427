"""Fetching a job is a move, never a pop.

RQ takes a job with BLMOVE where a worker listens to one queue, and with BLPOP where it listens to several
(``Queue.dequeue_any`` in ``rq/queue.py``, read in 2.6.1 to 3.0.0). A reply that does not arrive then leaves the job
stuck in the intermediate queue, or lost. Here a script moves the job and records who took it, under a fetch number
that the worker chose: a retry with the same number returns the same job.

Waiting for a job is in ``wait.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job

from graceful.core.untrusted import NAME_LIMIT
from graceful.reports.set_aside import Script
from graceful.worker.cluster.process_identity import Process
from graceful.worker.queue.lua import ASK, UNSETTLED, WHOLE

HELD_KEY = "graceful:held:{}"
HOLDERS_KEY = "graceful:holders"
HELD_SECONDS = 7 * 24 * 3600
"""How long only graceful workers may fail a job that a worker holds, even a dead one; then RQ's own clean-up, which web
pages and stock workers run, takes over. The held key itself is kept until the worker's report is closed."""
AUTOPSY_KEY = "graceful:autopsy:{}"
"""Lock of the reaper that is at work on a dead worker's report."""

FETCH_SCRIPT = (
    UNSETTLED
    + """
-- KEYS: held, holders, then queue and intermediate queue in turn.
-- ARGV: number of this fetch, id of the worker, seconds for which nobody else may fail it, prefix of job keys.
local held = redis.call('HMGET', KEYS[1], 'fetch', 'queue', 'job')
local holder = redis.call('HGET', KEYS[2], held[3] or '')
if held[1] == ARGV[1] and held[2] and held[3] then
  return {held[2], held[3], 'taken'}
end
local mine = held[3] and holder == ARGV[2]
if mine and held[2] and unsettled(held[2], held[3], ARGV[4]) then
  -- The worker is done with it, but Redis was restarted and has lost its last writes.
  return {held[2], held[3], 'forgotten'}
end
local first
for i = 3, #KEYS, 2 do
  if redis.call('LLEN', KEYS[i]) > 0 then
    redis.call('LLEN', KEYS[i + 1])
    first = i
    break
  end
end
-- Nothing below can fail.
if mine and held[2] then
  redis.pcall('LREM', held[2] .. ':intermediate', 0, held[3])
  redis.call('DEL', held[2] .. ':intermediate:first_seen:' .. held[3])
end
if not first then
  return false
end
local job = redis.call('LMOVE', KEYS[first], KEYS[first + 1], 'LEFT', 'RIGHT')
if mine then
  redis.call('HDEL', KEYS[2], held[3])
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fetch', ARGV[1], 'queue', KEYS[first], 'job', job)
redis.call('HSET', KEYS[2], job, ARGV[2])
-- As if RQ's maintenance had first seen it in the far future: it fails a job that it has known for a minute, even if
-- the worker is dead and no reaper has come yet (IntermediateQueue.cleanup).
local late = redis.call('TIME')[1] + ARGV[3]
redis.call('SET', KEYS[first + 1] .. ':first_seen:' .. job, late, 'EX', ARGV[3])
return {KEYS[first], job, 'taken'}
"""
)

CLAIM_SCRIPT = (
    ASK
    + WHOLE
    + """
-- KEYS: held, holders, and where a horse is about to begin the lock of a reaper, and the job.
-- ARGV: id of the worker, job, then fields and their values in turn.
-- Returns 0, or one more than how often the job has been interrupted.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
  return 0
end
-- A reaper that is at work on this worker has looked for a horse already, and is about to put the job back.
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
local interruptions = KEYS[4] and whole(ask('HGET', KEYS[4], 'graceful_interruptions')) or 0
-- The first write: on a key of another type it fails, and nothing is changed.
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
-- From here on it is in RQ's started registry.
redis.call('DEL', (redis.call('HGET', KEYS[1], 'queue') or '') .. ':intermediate:first_seen:' .. ARGV[2])
return 1 + interruptions
"""
)

RELEASE_JOB_SCRIPT = """
-- KEYS: held, holders, first seen of the job. ARGV: id of the worker, job.
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[2], ARGV[2])
  -- RQ's maintenance handles it again, as if we had never held it.
  redis.call('DEL', KEYS[1], KEYS[3])
end
"""


class Fetched(NamedTuple):
    """A fetched job id, which is in the intermediate queue of ``queue_key``.

    If ``forgotten``, one that the worker was done with and that a restarted Redis still lists as held.
    """

    queue_key: str
    job_id: str
    forgotten: bool = False


class Fetcher:
    """Fetches jobs for one worker.

    Args:
        connection: the worker's Redis connection.
        worker_id: id of this run of the worker, different at each start.
    """

    def __init__(self, connection: redis.Redis, worker_id: str) -> None:
        self._script = Script(connection, FETCH_SCRIPT)
        self._connection = connection
        self._worker_id = worker_id
        self._count = 0
        self.unsure = False
        """Whether the last fetch had no reply: it may have moved a job anyway."""

    def fetch(self, queue_keys: Sequence[tuple[str, str]]) -> Fetched | None:
        """Move the first job of the first queue that has one; can be retried after an error without loss.

        Args:
            queue_keys: the keys of each queue and of its intermediate queue, in order of priority.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable, or refused.
        """
        keys = [HELD_KEY.format(self._worker_id), HOLDERS_KEY, *(key for pair in queue_keys for key in pair)]
        self.unsure = True
        prefix = Job.redis_job_namespace_prefix
        reply: Any = self._script(
            keys=keys, args=[f"{self._worker_id}:{self._count}", self._worker_id, HELD_SECONDS, prefix]
        )
        self.unsure = False
        if not reply:
            return None
        queue_key, job_id, how = (part.decode() if isinstance(part, bytes) else part for part in reply)
        if how == "forgotten":
            return Fetched(queue_key, job_id, forgotten=True)
        # The next fetch gets a new number only now that the reply has arrived.
        self._count += 1
        return Fetched(queue_key, job_id)

    def unconfirmed(self) -> Fetched | None:
        """The job that was moved for a fetch whose reply never arrived, if there is one."""
        fetch, queue_key, job_id = (
            part.decode() if isinstance(part, bytes) else part
            for part in self._connection.hmget(HELD_KEY.format(self._worker_id), "fetch", "queue", "job")
        )
        if fetch != f"{self._worker_id}:{self._count}" or queue_key is None or job_id is None:
            return None
        return Fetched(queue_key, job_id)


def claim(connection: redis.Redis, worker_id: str, job_id: str, horse: Process) -> int | None:
    """The horse is about to run this job: record its pid.

    Returns:
        how often shutdowns have interrupted the job; None if it is not the worker's any more. Its worker counted as
        dead, or Redis lost its last second; the job is in its queue again, is about to be, or another worker holds it.
    """
    fields: dict[str, str | int] = {"horse": horse.pid, "horse_started": horse.started, "policy": "requeue"}
    noted = _note(connection, worker_id, job_id, fields, AUTOPSY_KEY.format(worker_id), Job.key_for(job_id))
    return noted - 1 if noted else None


def describe(connection: redis.Redis, worker_id: str, job_id: str, function: str, *, fails: bool) -> None:
    """The horse has unpickled the job and is about to run its code: record its function and policy.

    A reaper of a dead worker's job decides by these, and need not unpickle the job.

    Args:
        function: dotted name of its function.
        fails: whether an interruption fails it instead of requeueing it.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    _note(connection, worker_id, job_id, {"function": function, "policy": "fail" if fails else "requeue"})


def _note(
    connection: redis.Redis, worker_id: str, job_id: str, fields: dict[str, str | int], *further: str | bytes
) -> int:
    pairs = [part for pair in fields.items() for part in pair]
    script = Script(connection, CLAIM_SCRIPT)
    return int(script(keys=[HELD_KEY.format(worker_id), HOLDERS_KEY, *further], args=[worker_id, job_id, *pairs]))


def held_fields(held: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """The fields of ``graceful:held:<worker id>``; values that are not text, or too long, are left out."""
    found = {}
    for field, value in held.items():
        try:
            pair = [part.decode() if isinstance(part, bytes) else part for part in (field, value)]
        except UnicodeDecodeError:
            continue
        if len(pair[1]) <= NAME_LIMIT:
            found[pair[0]] = pair[1]
    return found


def release_job(connection: redis.Redis, worker_id: str, job_id: str, queue_key: str) -> None:
    """Stop holding a job, and leave it where it is.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    first_seen = IntermediateQueue(queue_key, connection).get_first_seen_key(job_id)
    keys = [HELD_KEY.format(worker_id), HOLDERS_KEY, first_seen]
    Script(connection, RELEASE_JOB_SCRIPT)(keys=keys, args=[worker_id, job_id])
