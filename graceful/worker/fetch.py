"""Fetching a job is a move, never a pop, and waiting for one takes nothing away.

RQ takes a job with BLMOVE where a worker listens to one queue, and with BLPOP where it listens to several
(``Queue.dequeue_any`` in ``rq/queue.py``, read in 2.6.1 to 3.0.0). A reply that does not arrive then leaves the job
stuck in the intermediate queue, or in nobody's hands. Here a script moves the job and writes down who took it, under
a number that the worker chose: asked again with the same number, it gives out the same job again.

Waiting is ``BLMOVE queue queue LEFT LEFT``, on a connection for each queue: the reply says that the queue has a job,
and the queue stays as it is. So a waiting connection can be cut at any instant, by us as by the network.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job

from graceful.core.report_json import NAME_LIMIT
from graceful.reports.set_aside import Script
from graceful.worker.lua import UNSETTLED
from graceful.worker.machine import Process
from graceful.worker.os_signals import Inbox
from graceful.worker.raw import NoRawConnection, RawConnection

log = logging.getLogger("graceful.worker")
MAX_WATCHED_QUEUES = 16
"""Each watched queue costs a connection; those beyond are polled."""
POLL_SECONDS = 0.25
WATCH_SECONDS = 120.0
"""A waiting connection that says nothing for so long is replaced by a new one."""
SPARE_CONNECTIONS = 2
"""Left in the pool for commands, of which two threads may send one at a time."""
HELD_KEY = "graceful:held:{}"
HOLDERS_KEY = "graceful:holders"
HELD_SECONDS = 7 * 24 * 3600
"""For so long nobody but us fails a job that a worker holds, though that worker may be dead: RQ's own clean-up, which
web pages and stock workers run, takes over then. What a worker holds is kept until somebody has closed its report."""

FETCH_SCRIPT = (
    UNSETTLED
    + """
-- KEYS: held, holders, then queue and intermediate queue in turn.
-- ARGV: number of this fetch, life of the worker, seconds for which nobody else fails it, prefix of the keys of jobs.
local held = redis.call('HMGET', KEYS[1], 'fetch', 'queue', 'job')
local holder = redis.call('HGET', KEYS[2], held[3] or '')
if held[1] == ARGV[1] and held[2] and held[3] then
  return {held[2], held[3], 'taken'}
end
local mine = held[3] and holder == ARGV[2]
if mine and held[2] and unsettled(held[2], held[3], ARGV[4]) then
  -- The worker is done with it. But Redis may have been restarted without its last moments.
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
-- All that can fail is behind us.
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
-- As if RQ's maintenance had first seen it in the far future: it fails what it has known for a minute, also where the
-- worker is dead and nobody has looked after it yet (IntermediateQueue.cleanup).
local late = redis.call('TIME')[1] + ARGV[3]
redis.call('SET', KEYS[first + 1] .. ':first_seen:' .. job, late, 'EX', ARGV[3])
return {KEYS[first], job, 'taken'}
"""
)

CLAIM_SCRIPT = """
-- KEYS: held, holders. ARGV: life of the worker, job, then fields and their values in turn.
redis.call('HLEN', KEYS[1])
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
-- From here on RQ's started registry has it.
redis.call('DEL', (redis.call('HGET', KEYS[1], 'queue') or '') .. ':intermediate:first_seen:' .. ARGV[2])
return 1
"""


LET_GO_SCRIPT = """
-- KEYS: held, holders, first seen of the job. ARGV: life of the worker, job.
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[2], ARGV[2])
  -- RQ's maintenance looks after it again, as if we had never held it.
  redis.call('DEL', KEYS[1], KEYS[3])
end
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job id on its way to a worker: it stands in the intermediate queue of ``queue_key``.

    Or, if ``forgotten``, one that the worker was done with and that Redis, restarted, still has in its hands.
    """

    queue_key: str
    job_id: str
    forgotten: bool = False


class Fetcher:
    """Takes jobs for one worker.

    Args:
        connection: the worker's Redis connection.
        life: a name of this life of the worker, different at each start.
    """

    def __init__(self, connection: redis.Redis, life: str) -> None:
        self._script = Script(connection, FETCH_SCRIPT)
        self._connection = connection
        self._life = life
        self._count = 0
        self.unsure = False
        """Whether the last fetch had no reply: it may have moved a job all the same."""

    def fetch(self, queue_keys: Sequence[tuple[str, str]]) -> Fetched | None:
        """Move the first job of the first queue that has one; may be repeated after an error without loss.

        Args:
            queue_keys: the keys of each queue and of its intermediate queue, in order of priority.

        Raises:
            redis.exceptions.RedisError: Redis did not answer, or refused.
        """
        keys = [HELD_KEY.format(self._life), HOLDERS_KEY, *(key for pair in queue_keys for key in pair)]
        self.unsure = True
        prefix = Job.redis_job_namespace_prefix
        reply: Any = self._script(keys=keys, args=[f"{self._life}:{self._count}", self._life, HELD_SECONDS, prefix])
        self.unsure = False
        if not reply:
            return None
        queue_key, job_id, how = (part.decode() if isinstance(part, bytes) else part for part in reply)
        if how == "forgotten":
            return Fetched(queue_key, job_id, forgotten=True)
        # Only now that the reply is here may the next fetch have another number.
        self._count += 1
        return Fetched(queue_key, job_id)

    def unconfirmed(self) -> Fetched | None:
        """The job that was moved for a fetch whose reply never arrived, if there is one."""
        fetch, queue_key, job_id = (
            part.decode() if isinstance(part, bytes) else part
            for part in self._connection.hmget(HELD_KEY.format(self._life), "fetch", "queue", "job")
        )
        if fetch != f"{self._life}:{self._count}" or queue_key is None or job_id is None:
            return None
        return Fetched(queue_key, job_id)


def claim(connection: redis.Redis, life: str, job_id: str, horse: Process) -> bool:
    """The horse's first word: it is about to run this job.

    Returns:
        False if the job is not the worker's any more. Its worker counted as dead, or Redis lost its last second; the
        job is in its queue again, or another worker's.
    """
    return _note(connection, life, job_id, {"horse": horse.pid, "horse_started": horse.started, "policy": "requeue"})


def describe(connection: redis.Redis, life: str, job_id: str, function: str, *, fails: bool) -> None:
    """The horse's second word, before the job's own code runs: what is known of the job now that it is unpickled.

    A reaper that finds the job in a dead worker's hands decides by it, and need not unpickle the job.

    Args:
        function: dotted name of its function.
        fails: whether it is to fail, and not to be started again, when it is interrupted.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    _note(connection, life, job_id, {"function": function, "policy": "fail" if fails else "requeue"})


def _note(connection: redis.Redis, life: str, job_id: str, fields: dict[str, str | int]) -> bool:
    pairs = [part for pair in fields.items() for part in pair]
    script = Script(connection, CLAIM_SCRIPT)
    return bool(script(keys=[HELD_KEY.format(life), HOLDERS_KEY], args=[life, job_id, *pairs]))


def texts(held: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """The fields of ``graceful:held:<life>``; those that are no text, or of no length of ours, are not there."""
    found = {}
    for field, value in held.items():
        try:
            pair = [part.decode() if isinstance(part, bytes) else part for part in (field, value)]
        except UnicodeDecodeError:
            continue
        if len(pair[1]) <= NAME_LIMIT:
            found[pair[0]] = pair[1]
    return found


def let_go(connection: redis.Redis, life: str, job_id: str, queue_key: str) -> None:
    """Hold a job no longer, and leave it where it is.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    first_seen = IntermediateQueue(queue_key, connection).get_first_seen_key(job_id)
    keys = [HELD_KEY.format(life), HOLDERS_KEY, first_seen]
    Script(connection, LET_GO_SCRIPT)(keys=keys, args=[life, job_id])


def connections_left(connection: redis.Redis) -> int:
    """How many connections the client's pool would still give out.

    redis-py has no public way to it; read in redis 5.0 to 8.1 (``ConnectionPool``, ``BlockingConnectionPool``).
    """
    pool: Any = connection.connection_pool
    if isinstance(pool, redis.BlockingConnectionPool):
        return int(pool.pool.qsize())
    return int(pool.max_connections) - len(pool._in_use_connections)


class QueueWatch:
    """Waits for a job on several queues at once without taking any, and for signals at the same time."""

    def __init__(self, connection: redis.Redis, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._waiting: dict[str, _Waiting] = {}
        self._polling = False

    def wait(self, queue_keys: Sequence[str], seconds: float) -> bool:
        """Wait until one of the queues may have a job, a signal comes, or the time is up.

        Args:
            queue_keys: keys of the queues.
            seconds: how long to wait at most.

        Returns:
            False if the time is up and nothing happened.

        Raises:
            redis.exceptions.ConnectionError: Redis cannot be reached.
        """
        if not self._polling:
            self._ask(queue_keys[:MAX_WATCHED_QUEUES])
        if self._polling or len(queue_keys) > MAX_WATCHED_QUEUES:
            seconds = min(seconds, POLL_SECONDS)
        began = time.monotonic()
        while True:
            left = began + seconds - time.monotonic()
            sockets = {waiting.raw.socket: waiting for waiting in self._waiting.values()}
            ready = self._inbox.wait(max(0.0, left), list(sockets))
            if self._inbox.unread:
                return True
            try:
                answered = [sockets[each].answered() for each in ready]
            except NoPermissionError as error:
                self._poll(str(error))
                return True
            if any(answered):
                return True
            if time.monotonic() >= began + seconds:
                return self._polling or len(queue_keys) > MAX_WATCHED_QUEUES

    def _ask(self, queue_keys: Sequence[str]) -> None:
        new = [queue_key for queue_key in queue_keys if queue_key not in self._waiting]
        try:
            if new and connections_left(self._connection) < len(new) + SPARE_CONNECTIONS:
                self._poll("the pool has no connections to spare")
                return
            for queue_key in new:
                self._waiting[queue_key] = _Waiting(self._connection, queue_key)
            for queue_key in queue_keys:
                self._waiting[queue_key].ask()
        except (redis.exceptions.MaxConnectionsError, NoRawConnection) as error:
            self._poll(str(error))
        except RedisError:
            self.close()
            raise

    def _poll(self, why: str) -> None:
        """From now on look at the queues every now and then instead."""
        log.info("Queues are looked at every %g s, and not watched: %s", POLL_SECONDS, why)
        self.close()
        self._polling = True

    def close(self) -> None:
        """Cut the waiting connections. Nothing is lost by it: they only looked."""
        for waiting in self._waiting.values():
            waiting.raw.close()
        self._waiting = {}


class _Waiting:
    """One connection with a blocking look at one queue under way."""

    def __init__(self, connection: redis.Redis, queue_key: str) -> None:
        self.raw = RawConnection(connection)
        self._queue_key = queue_key
        self._asked_until = 0.0

    def ask(self) -> None:
        now = time.monotonic()
        if self._asked_until > now and self.raw.socket is not None:
            return
        if self._asked_until:
            # No answer for long: the connection may be half dead, and a new one is cheap and certain.
            self.raw.disconnect()
        self.raw.send("BLMOVE", self._queue_key, self._queue_key, "LEFT", "LEFT", 0)
        self._asked_until = now + WATCH_SECONDS

    def answered(self) -> bool:
        """Read what came. True if it means: look at the queue.

        Raises:
            redis.exceptions.NoPermissionError: this user may not wait.
        """
        try:
            if not self.raw.readable():
                return False
            self.raw.read()
        except NoPermissionError:
            raise
        except (RedisConnectionError, redis.exceptions.TimeoutError, ResponseError):
            self.raw.disconnect()
        self._asked_until = 0.0
        return True
