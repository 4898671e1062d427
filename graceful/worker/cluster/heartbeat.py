"""Heartbeats: which workers are alive, as far as Redis knows, and which ones a reaper should examine."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from graceful.exceptions import NoLuaScripts
from graceful.reports import set_aside
from graceful.reports.set_aside import Script
from graceful.worker.cluster.deregister import deregister
from graceful.worker.cluster.process_identity import machine
from graceful.worker.cluster.registration import ENCODING, HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY, Registration
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY

HEARTBEAT_SECONDS = 15.0
OVERDUE_SECONDS = 60
"""A worker on another machine whose last heartbeat is older counts as dead: found after 60 to 75 s."""
JUDGE_SECONDS = 30
"""A worker whose own last heartbeat is older does not judge others: while Redis is unreachable, nobody's arrives."""
MACHINE_SECONDS = 7 * 24 * 3600
SUSPECTS_KEY = "graceful:suspects"
SUSPECTS_SECONDS = 120
"""How long a process without a heartbeat of its own remembers whom it found overdue."""

HEARTBEAT_SCRIPT = """
-- KEYS: workers, heartbeats, machine. ARGV: worker id, registration, seconds until overdue, seconds to keep it,
-- seconds since its own last heartbeat after which it does not judge others.
local now = tonumber(redis.call('TIME')[1])
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
redis.call('SCARD', KEYS[3])
-- The first write: on a key of another type it fails, and nothing is changed. Nothing after it can fail.
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[4])
local overdue = {}
if now - before <= tonumber(ARGV[5]) then
  overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]), 'LIMIT', 0, 20)
end
return {overdue, redis.call('SMEMBERS', KEYS[3])}
"""

OBSERVE_SCRIPT = """
-- KEYS: heartbeats, machine, suspects. ARGV: seconds until overdue, until a suspect is judged, until it is forgotten.
local now = tonumber(redis.call('TIME')[1])
local neighbours = redis.call('SMEMBERS', KEYS[2])
redis.call('ZCARD', KEYS[3])
-- All that can fail is behind us.
local overdue = {}
for _, worker_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, 200)) do
  local beat = tonumber(redis.call('ZSCORE', KEYS[1], worker_id))
  local since = tonumber(redis.call('ZSCORE', KEYS[3], worker_id) or '-inf')
  if since < now - tonumber(ARGV[3]) or since > now or beat > since - tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[3], now, worker_id)
    redis.call('EXPIRE', KEYS[3], ARGV[3])
  elseif since <= now - tonumber(ARGV[2]) then
    table.insert(overdue, worker_id)
  end
end
return {overdue, neighbours}
"""

STALE_HOLDERS_SCRIPT = """
-- KEYS: workers, holders. ARGV: prefix of the held keys.
local holders = redis.call('HGETALL', KEYS[2])
for i = 1, #holders, 2 do
  local worker_id = holders[i + 1]
  if redis.call('HEXISTS', KEYS[1], worker_id) == 0 and redis.call('EXISTS', ARGV[1] .. worker_id) == 0 then
    redis.call('HDEL', KEYS[2], holders[i])
  end
end
"""


class Peers(NamedTuple):
    """Other workers that a reaper should examine.

    Args:
        overdue: ids of workers whose heartbeat is overdue.
        neighbours: ids of those on this machine, the caller's own included.
    """

    overdue: tuple[str, ...]
    neighbours: tuple[str, ...]


class Heartbeat:
    """One worker's heartbeat in Redis.

    Every method raises ``redis.exceptions.RedisError`` if Redis is unreachable.

    Args:
        connection: the worker's client.
        registration: the worker's.
    """

    def __init__(self, connection: redis.Redis, registration: Registration) -> None:
        self.registration = registration
        self.connection = connection
        self._script = Script(connection, HEARTBEAT_SCRIPT)

    def beat(self) -> Peers:
        """Send a heartbeat; returns whom a reaper should examine."""
        worker_id = self.registration.worker_id
        overdue, neighbours = self._script(
            keys=[WORKERS_KEY, HEARTBEATS_KEY, MACHINE_KEY.format(self.registration.process.machine)],
            args=[worker_id, self.registration.to_json(), OVERDUE_SECONDS, MACHINE_SECONDS, JUDGE_SECONDS],
        )
        return Peers(_texts(overdue), _texts(neighbours))

    def register(self, registration: Registration) -> None:
        """Replace the registration: more is known of the worker than at its start."""
        self.registration = registration
        text = registration.to_json()
        set_aside.retrying(
            self.connection, (WORKERS_KEY,), lambda: self.connection.hset(WORKERS_KEY, registration.worker_id, text)
        )

    def check_types(self) -> None:
        """Set aside keys of ours that have the wrong type, before the first command that uses them.

        Raises:
            NoLuaScripts: the server runs none; that is found out here, since it takes the first script.
        """
        machine = MACHINE_KEY.format(self.registration.process.machine)
        try:
            set_aside.wrong_types(self.connection, (*set_aside.TYPES, machine))
        except redis.exceptions.ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            raise NoLuaScripts(
                "A graceful worker needs a Redis server that runs Lua scripts (EVAL); fakeredis does with its extra: "
                f'pip install "fakeredis[lua]". The reply was: {error}'
            ) from error

    def deregister(self, *, archived: bool) -> None:
        """Remove the worker's entries; its journal entry too, once the report is ``archived``."""
        deregister(self.connection, self.registration, archived=archived)


def observe(connection: redis.Redis) -> Peers:
    """Whom a reaper should examine, for a process that has no heartbeat of its own.

    It cannot know whether Redis was unreachable until now. So a worker is overdue only if it was already overdue
    :data:`JUDGE_SECONDS` to :data:`SUSPECTS_SECONDS` ago, and has sent no heartbeat since.

    Args:
        connection: a client of the server.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    overdue, neighbours = Script(connection, OBSERVE_SCRIPT)(
        keys=[HEARTBEATS_KEY, MACHINE_KEY.format(machine()), SUSPECTS_KEY],
        args=[OVERDUE_SECONDS, JUDGE_SECONDS, SUSPECTS_SECONDS],
    )
    return Peers(_texts(overdue), _texts(neighbours))


def remove_stale_holders(connection: redis.Redis) -> None:
    """Remove stale entries from ``graceful:holders``: jobs whose holder is neither registered nor has a held key.

    The previous version let the held key of a dead worker expire after a week, but not its holder entry.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    connection.eval(STALE_HOLDERS_SCRIPT, 2, WORKERS_KEY, HOLDERS_KEY, HELD_KEY.format(""))


def suspects(connection: redis.Redis) -> int:
    """How many workers :func:`observe` has found overdue, and does not judge yet.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    return int(connection.zcard(SUSPECTS_KEY))


def dead_workers(connection: redis.Redis) -> list[Registration]:
    """Workers that are dead as seen from this machine, and whose reports are not closed yet.

    Args:
        connection: a client of the server that they are on.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    workers: Any = set_aside.retrying(connection, (WORKERS_KEY,), lambda: connection.hgetall(WORKERS_KEY))
    now: Any = connection.time()
    heartbeats: Any = set_aside.retrying(
        connection, (HEARTBEATS_KEY,), lambda: connection.zrange(HEARTBEATS_KEY, 0, -1, withscores=True)
    )
    last = dict(heartbeats)
    found = []
    for worker_id, text in workers.items():
        registration = Registration.from_json(text)
        if registration is None:
            continue
        if registration.process.dead(overdue=now[0] - last.get(worker_id, 0.0) > OVERDUE_SECONDS):
            found.append(registration)
    return found


def heard_worker_ids(connection: redis.Redis) -> frozenset[str]:
    """The ids of workers whose heartbeat is not overdue by the server's clock.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable.
    """
    now: Any = connection.time()
    heard: Any = connection.zrangebyscore(HEARTBEATS_KEY, now[0] - OVERDUE_SECONDS, "+inf")
    return frozenset(_texts(heard))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode(*ENCODING) if isinstance(value, bytes) else str(value) for value in values)
