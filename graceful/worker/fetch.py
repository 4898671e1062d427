"""Fetching a job is a move, never a pop, and waiting for one takes nothing away.

RQ takes a job with BLMOVE where a worker listens to one queue, and with BLPOP where it listens to several
(``Queue.dequeue_any`` in ``rq/queue.py``, read in 2.6.1 to 3.0.0). A reply that does not arrive then leaves the job
stuck in the intermediate queue, or in nobody's hands. Here a script moves the job and writes down who took it, under
a number that the worker chose: asked again with the same number, it gives out the same job again.

Waiting is ``BLMOVE queue queue LEFT LEFT``, on a connection for each queue: the reply says that the queue has a job,
and the queue stays as it is. So a waiting connection can be cut at any instant, by us as by the network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from graceful.worker.os_signals import Inbox

MAX_WATCHED_QUEUES = 16
"""Each watched queue costs a connection; those beyond are polled."""
POLL_SECONDS = 0.25
HELD_KEY = "graceful:held:{}"
HELD_SECONDS = 7 * 24 * 3600
REPLY_SECONDS = 1.0

FETCH_SCRIPT = """
-- KEYS: held, then queue and intermediate queue in turn. ARGV: number of this fetch, seconds to keep it.
local held = redis.call('HMGET', KEYS[1], 'fetch', 'queue', 'job')
if held[1] == ARGV[1] then
  return {held[2], held[3]}
end
for i = 2, #KEYS, 2 do
  local job = redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'LEFT', 'RIGHT')
  if job then
    redis.call('HSET', KEYS[1], 'fetch', ARGV[1], 'queue', KEYS[i], 'job', job)
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    return {KEYS[i], job}
  end
end
return false
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job id on its way to a worker: it stands in the intermediate queue of ``queue_key``."""

    queue_key: str
    job_id: str


class Fetcher:
    """Takes jobs for one worker.

    Args:
        connection: the worker's Redis connection.
        worker_name: under which it is written down what the worker holds.
        life: a name of this life of the worker, different at each start.
    """

    def __init__(self, connection: redis.Redis, worker_name: str, life: str) -> None:
        self._script = connection.register_script(FETCH_SCRIPT)
        self._connection = connection
        self._held_key = HELD_KEY.format(worker_name)
        self._life = life
        self._count = 0

    def fetch(self, queue_keys: Sequence[tuple[str, str]]) -> Fetched | None:
        """Move the first job of the first queue that has one; may be repeated after an error without loss.

        Args:
            queue_keys: the keys of each queue and of its intermediate queue, in order of priority.

        Raises:
            redis.exceptions.RedisError: Redis did not answer, or refused.
        """
        keys = [self._held_key, *(key for pair in queue_keys for key in pair)]
        reply: Any = self._script(keys=keys, args=[f"{self._life}:{self._count}", HELD_SECONDS])
        if not reply:
            return None
        # Only now that the reply is here may the next fetch have another number.
        self._count += 1
        queue_key, job_id = (part.decode() if isinstance(part, bytes) else part for part in reply)
        return Fetched(queue_key, job_id)

    def unconfirmed(self) -> Fetched | None:
        """The job that was moved for a fetch whose reply never arrived, if there is one."""
        fetch, queue_key, job_id = (
            part.decode() if isinstance(part, bytes) else part
            for part in self._connection.hmget(self._held_key, "fetch", "queue", "job")
        )
        if fetch != f"{self._life}:{self._count}" or queue_key is None or job_id is None:
            return None
        return Fetched(queue_key, job_id)

    def forget(self) -> None:
        """Remove what was written down for this worker: it holds nothing any more."""
        self._connection.delete(self._held_key)


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
        if self._polling or len(queue_keys) > MAX_WATCHED_QUEUES:
            seconds = min(seconds, POLL_SECONDS)
        if not self._polling:
            self._ask(queue_keys[:MAX_WATCHED_QUEUES], seconds)
        began = time.monotonic()
        while True:
            left = began + seconds - time.monotonic()
            sockets = {waiting.socket: waiting for waiting in self._waiting.values()}
            ready = self._inbox.wait(max(0.0, left), list(sockets))
            if self._inbox.received:
                return True
            answered = [sockets[each].answered() for each in ready]
            if any(answered):
                return True
            if time.monotonic() >= began + seconds:
                return self._polling or len(queue_keys) > MAX_WATCHED_QUEUES

    def _ask(self, queue_keys: Sequence[str], seconds: float) -> None:
        try:
            for queue_key in queue_keys:
                if queue_key not in self._waiting:
                    self._waiting[queue_key] = _Waiting(self._connection, queue_key)
                self._waiting[queue_key].ask(seconds)
        except redis.exceptions.MaxConnectionsError:
            # The pool has no connection to spare for waiting: look at the queues every now and then instead.
            self.close()
            self._polling = True
        except RedisError:
            self.close()
            raise

    def close(self) -> None:
        """Cut the waiting connections. Nothing is lost by it: they only looked."""
        for waiting in self._waiting.values():
            waiting.close()
        self._waiting = {}


class _Waiting:
    """One connection with a blocking look at one queue under way."""

    def __init__(self, connection: redis.Redis, queue_key: str) -> None:
        # Of the same pool, so made of the same settings: TLS, unix socket, Sentinel, password.
        self._client = redis.Redis(connection_pool=connection.connection_pool, single_connection_client=True)
        self._raw: Any = self._client.connection
        self._queue_key = queue_key
        self._asked_until = 0.0

    @property
    def socket(self) -> Any:
        # redis-py offers no public way to its socket; read in redis 5.0 to 8.1, redis/connection.py.
        return self._raw._sock

    def ask(self, seconds: float) -> None:
        now = time.monotonic()
        if self._asked_until > now and self.socket is not None:
            return
        if self._asked_until:
            # The server's own time-out is due, or the connection is half dead: a new one is cheap and certain.
            self._raw.disconnect()
        self._raw.send_command("BLMOVE", self._queue_key, self._queue_key, "LEFT", "LEFT", 0)
        self._asked_until = now + seconds
        self.socket.settimeout(REPLY_SECONDS)

    def answered(self) -> bool:
        """Read what came. True if it means: look at the queue."""
        try:
            if not self._raw.can_read(timeout=0):
                return False  # Something of TLS, not an answer.
            self._raw.read_response()
        except (RedisConnectionError, redis.exceptions.TimeoutError, ResponseError):
            self._raw.disconnect()
        self._asked_until = 0.0
        return True

    def close(self) -> None:
        self._raw.disconnect()
        self._client.close()
