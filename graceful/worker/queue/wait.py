"""Waiting for a job: one connection, however many queues, and only few of the idle workers on watch.

``EXISTS`` of the queues' keys under ``CLIENT TRACKING`` both shows whether there is a job and asks the server to push a
message at the next change of one of them. So there is no gap between checking and waiting, and nothing is taken from
the queue: the connection can be lost at any time. The message means "check", and so does a lost connection.

Of the idle workers of a queue, ``SEATS`` are on watch. The others are asleep: they track a key of their own. A worker
that takes a job writes the key of another one, which takes over its seat; of two, while there are more jobs. So a job
wakes a few workers and not all of them (no thundering herd). Seats are leases. Sleeping workers check the queue now and
then, in turns, so that no job waits for long when all workers on watch were killed.

Keys: ``graceful:watching:<queue key>`` and ``graceful:asleep:<queue key>`` (sorted sets: worker id to the end of its
lease, by the server's clock), ``graceful:wake:<worker id>`` (written to wake that worker).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from graceful.worker.compat.redis_connection import NoRawConnection, OwnConnection
from graceful.worker.shutdown.os_signals import Inbox

log = logging.getLogger("graceful.worker")
SEATS = 2
"""One more than necessary: a job is still seen at once if one of the workers on watch was killed."""
RENEW_SECONDS = 120.0
"""After so long without a message a worker renews its tracking: its connection may be half-open."""
LEASE_SECONDS = 150
WOKEN_SECONDS = 2
"""How long a woken worker has to take its seat."""
CHECK_SECONDS = 2.0
"""How often a queue is checked by all its sleeping workers together."""
POLL_SECONDS = 0.25
MOST_SPURIOUS_WAKEUPS = 20
"""More wake-ups in a row without a job have a cause, for instance a tracking table that is too small."""
SPURIOUS_PAUSE_SECONDS = 0.05
WATCHING_KEY = "graceful:watching:{}"
ASLEEP_KEY = "graceful:asleep:{}"
WAKE_KEY = "graceful:wake:{}"

JOIN_SCRIPT = """
-- KEYS: wake, then watching and asleep of each queue. ARGV: worker id, seats, seconds of the lease.
-- Returns how many are asleep with it, 0 if it is on watch everywhere; then for each queue whether it is on watch.
local now = tonumber(redis.call('TIME')[1])
local reply = {0}
redis.call('DEL', KEYS[1])
for i = 2, #KEYS, 2 do
  local place = KEYS[i]
  redis.call('ZREMRANGEBYSCORE', place, '-inf', now)
  redis.call('ZREM', place, ARGV[1])
  redis.call('ZREM', KEYS[i + 1], ARGV[1])
  reply[#reply + 1] = 1
  if redis.call('ZCARD', place) >= tonumber(ARGV[2]) then
    place = KEYS[i + 1]
    redis.call('ZREMRANGEBYSCORE', place, '-inf', now)
    reply[#reply] = 0
    reply[1] = math.max(reply[1], redis.call('ZCARD', place) + 1)
  end
  redis.call('ZADD', place, now + ARGV[3], ARGV[1])
  redis.call('EXPIRE', place, ARGV[3])
end
return reply
"""

LEAVE_SCRIPT = """
-- KEYS: queue, watching, asleep of each queue.
-- ARGV: worker id, seats, seconds of the lease, seconds that a woken worker has to come, '1' if those on watch missed
-- a job, prefix of the wake keys.
for i = 1, #KEYS, 3 do
  if ARGV[5] == '1' then
    redis.call('DEL', KEYS[i + 1])
  end
  redis.call('ZREM', KEYS[i + 1], ARGV[1])
  redis.call('ZREM', KEYS[i + 2], ARGV[1])
  if redis.call('EXISTS', KEYS[i + 2]) == 1 then
    local now = tonumber(redis.call('TIME')[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[i + 1], '-inf', now)
    local wake = ARGV[2] - redis.call('ZCARD', KEYS[i + 1])
    if redis.call('EXISTS', KEYS[i]) == 1 then
      wake = math.max(wake, 2)
    end
    for _ = 1, wake do
      -- The latest comer is the most likely to be still alive.
      local worker_id = redis.call('ZPOPMAX', KEYS[i + 2])[1]
      if not worker_id then
        break
      end
      redis.call('ZADD', KEYS[i + 1], now + ARGV[4], worker_id)
      redis.call('EXPIRE', KEYS[i + 1], ARGV[3])
      redis.call('SET', ARGV[6] .. worker_id, 1, 'EX', ARGV[3])
    end
  end
end
"""


def release_seats(connection: redis.Redis, worker_id: str, queue_keys: Sequence[str]) -> None:
    """Give up the seats of a dead worker, so that another one takes over at once.

    Args:
        connection: a client of the server.
        worker_id: the dead worker's.
        queue_keys: keys of its queues.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    with connection.pipeline(transaction=False) as pipeline:
        for key in queue_keys:
            pipeline.zrem(WATCHING_KEY.format(key), worker_id)
            pipeline.zrem(ASLEEP_KEY.format(key), worker_id)
        pipeline.delete(WAKE_KEY.format(worker_id))
        pipeline.execute(raise_on_error=False)  # A key of another type holds no seat.


class QueueWatch:
    """Waits for a job on several queues and for signals at the same time; takes no job.

    Args:
        own: the connection to wait on.
        inbox: wakes it at a signal.
        worker_id: its id (see :mod:`graceful.worker.cluster.registration`).
    """

    def __init__(self, own: OwnConnection, inbox: Inbox, worker_id: str) -> None:
        self._own = own
        self._inbox = inbox
        self._worker_id = worker_id
        self._tracking: Any = None
        """The socket on which tracking is on."""
        self._joined: tuple[str, ...] = ()
        self._tracked: tuple[str, ...] = ()
        self._stale = False
        self._renew_at = 0.0
        self._check_at = math.inf
        self._seconds_asleep = 0.0
        self._poll_until = 0.0
        self._found_asleep = False
        self._spurious_wakeups = 0

    def wait(self, queue_keys: Sequence[str], seconds: float) -> bool:
        """Wait until one of the queues may have a job, a signal comes, or the time is up.

        Args:
            queue_keys: keys of the queues.
            seconds: how long to wait at most.

        Returns:
            False if the time is up.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable, or is a replica now, or is out of memory.
        """
        until = time.monotonic() + seconds
        if self._spurious_wakeups >= MOST_SPURIOUS_WAKEUPS:
            self._inbox.wait(min(seconds, SPURIOUS_PAUSE_SECONDS))
        if self._inbox.unread:
            return True
        if time.monotonic() >= self._poll_until and self._ask(tuple(sorted(queue_keys))):
            return self._woken()
        if not self._joined:
            self._inbox.wait(min(seconds, POLL_SECONDS))
            return True
        while True:
            try:
                # A message may already be in the client's own buffer, where the socket does not show it.
                if self._own.readable():
                    return self._woken()
                self._inbox.wait(max(0.0, min(until, self._check_at) - time.monotonic()), [self._tracking])
                if self._inbox.unread:
                    return True
                if self._own.readable():
                    return self._woken()
                now = time.monotonic()
                if now >= self._check_at:
                    self._check_at = now + self._seconds_asleep * random.uniform(0.0, 2.0)
                    if self._own.ask(("EXISTS", *self._joined))[0]:
                        self._found_asleep = True
                        return self._woken()
            except RedisError:
                self._own.disconnect()
                return self._woken()
            if now >= until:
                self._spurious_wakeups = 0
                return False

    def leave(self) -> None:
        """Stop waiting; if the worker has taken a job, others are woken in its place."""
        joined, self._joined = self._joined, ()
        self._spurious_wakeups = 0
        if not joined or self._own.socket is not self._tracking:
            return
        keys = [each for key in joined for each in (key, WATCHING_KEY.format(key), ASLEEP_KEY.format(key))]
        seconds = (LEASE_SECONDS, WOKEN_SECONDS)
        arguments = (self._worker_id, SEATS, *seconds, "1" if self._found_asleep else "", WAKE_KEY.format(""))
        self._found_asleep = False
        try:
            self._own.post("EVAL", LEAVE_SCRIPT, len(keys), *keys, *arguments)
        except RedisError:
            self._own.disconnect()  # Its lease will end.

    def _ask(self, queue_keys: tuple[str, ...]) -> bool:
        """Be on watch, or asleep. True if there is a job to fetch now."""
        try:
            self._found_asleep = False
            if self._own.socket is None or self._own.socket is not self._tracking:
                self._joined = ()
                self._own.ask(("CLIENT", "TRACKING", "ON", "OPTIN"))
                self._tracking = self._own.socket
                if not self._own.pushes:
                    raise NoRawConnection("RESP3 is not spoken")
            if self._joined != queue_keys or time.monotonic() >= self._renew_at:
                self._join(queue_keys)
            elif not self._stale:
                return False
            # Tracks only what the next command reads, and not what scripts read, which differs between versions.
            _, found = self._own.ask(("CLIENT", "CACHING", "YES"), ("EXISTS", *self._tracked))
            self._stale = False
            return bool(found)
        except (ResponseError, NoRawConnection) as error:
            self.leave()
            if isinstance(error, (ReadOnlyError, OutOfMemoryError)):
                self._own.disconnect()
                raise
            # No permission, a proxy without RESP3, or a connection class without protocol or socket.
            if not self._poll_until:
                log.info("Client tracking is unavailable, queues are polled every %g s: %s", POLL_SECONDS, error)
            self._poll_until = time.monotonic() + RENEW_SECONDS
            return False
        except RedisError:
            self._own.disconnect()
            self.leave()
            raise

    def _join(self, queue_keys: tuple[str, ...]) -> None:
        wake = WAKE_KEY.format(self._worker_id)
        keys = [wake, *(each for key in queue_keys for each in (WATCHING_KEY.format(key), ASLEEP_KEY.format(key)))]
        [[asleep, *seated]] = self._own.ask(
            ("EVAL", JOIN_SCRIPT, len(keys), *keys, self._worker_id, SEATS, LEASE_SECONDS)
        )
        self._joined = queue_keys
        self._tracked = (wake, *(key for key, seat in zip(queue_keys, seated, strict=True) if seat))
        now = time.monotonic()
        self._renew_at = now + RENEW_SECONDS
        self._seconds_asleep = min(CHECK_SECONDS * asleep, RENEW_SECONDS)
        self._check_at = now + self._seconds_asleep * random.uniform(0.0, 2.0) if asleep else math.inf
        self._stale = True

    def _woken(self) -> bool:
        self._stale = True
        if self._check_at < math.inf:
            self._renew_at = 0.0  # It may have been woken to take over a seat.
        self._spurious_wakeups += 1
        return True
