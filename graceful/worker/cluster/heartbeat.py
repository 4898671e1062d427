"""Which workers there are, as far as Redis knows: each says so every few seconds, and hears of those that do not.

Keys: ``graceful:workers`` (hash: life to what an autopsy must know), ``graceful:beats`` (sorted set: life to the
server's time of its last beat), ``graceful:on:<machine>`` (set: lives on one machine), ``graceful:held:<life>`` (hash:
the job in its hands), ``graceful:holders`` (hash: job id to the life that holds it). A *life* is the id of the
worker's report. Times are the server's, so that no machine's clock matters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import redis
from rq.job import Job

from graceful.core import report_json
from graceful.exceptions import UnreadableReport
from graceful.reports import set_aside
from graceful.reports.journal import JOURNAL_KEY
from graceful.reports.set_aside import Script
from graceful.worker.cluster.process_identity import Process, machine, oom_kills
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY
from graceful.worker.queue.lua import UNSETTLED

WORKERS_KEY = "graceful:workers"
BEATS_KEY = "graceful:beats"
MACHINE_KEY = "graceful:on:{}"
ENCODING = ("utf-8", "surrogateescape")
BEAT_SECONDS = 15.0
OVERDUE_SECONDS = 60
"""Without a beat for so long a worker on another machine counts as gone: found after 60 to 75 s."""
JUDGE_SECONDS = 30
"""A worker whose own last beat is longer ago does not judge others: while Redis was away, nobody could beat."""
MACHINE_SECONDS = 7 * 24 * 3600
SUSPECTS_KEY = "graceful:suspects"
SUSPECTS_SECONDS = 120
"""For so long it is remembered who was found silent by a process that has no heartbeat of its own."""

BEAT_SCRIPT = """
-- KEYS: workers, beats, machine. ARGV: life, registration, seconds until overdue, seconds to keep the machine,
-- seconds since its own last beat after which it does not judge others.
local now = tonumber(redis.call('TIME')[1])
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
redis.call('HLEN', KEYS[1])
redis.call('SCARD', KEYS[3])
-- All that can fail is behind us.
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

LOOK_SCRIPT = """
-- KEYS: beats, machine, suspects. ARGV: seconds until overdue, until a suspect is judged, until it is forgotten.
local now = tonumber(redis.call('TIME')[1])
local neighbours = redis.call('SMEMBERS', KEYS[2])
redis.call('ZCARD', KEYS[3])
-- All that can fail is behind us.
local overdue = {}
for _, life in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, 200)) do
  local beat = tonumber(redis.call('ZSCORE', KEYS[1], life))
  local since = tonumber(redis.call('ZSCORE', KEYS[3], life) or '-inf')
  if since < now - tonumber(ARGV[3]) or since > now or beat > since - tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[3], now, life)
    redis.call('EXPIRE', KEYS[3], ARGV[3])
  elseif since <= now - tonumber(ARGV[2]) then
    table.insert(overdue, life)
  end
end
return {overdue, neighbours}
"""

FORGET_HOLDERS_SCRIPT = """
-- KEYS: workers, holders. ARGV: prefix of the keys of what is held.
local holders = redis.call('HGETALL', KEYS[2])
for i = 1, #holders, 2 do
  local life = holders[i + 1]
  if redis.call('HEXISTS', KEYS[1], life) == 0 and redis.call('EXISTS', ARGV[1] .. life) == 0 then
    redis.call('HDEL', KEYS[2], holders[i])
  end
end
"""

LEAVE_SCRIPT = (
    UNSETTLED
    + """
-- KEYS: workers, beats, machine, held, holders, journal.
-- ARGV: life, '1' to remove the journal's entry too, prefix of the keys of jobs, '1' if the job has been seen to.
local held = ask('HMGET', KEYS[4], 'queue', 'job') or {}
local mine = redis.call('HGET', KEYS[5], held[2] or '') == ARGV[1] and held[2]
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('SCARD', KEYS[3])
redis.call('HLEN', KEYS[6])
if mine and held[1] and ARGV[4] == '' and unsettled(held[1], mine, ARGV[3]) then
  -- Redis was restarted without its last moments: a reaper gives the job back.
  return 0
end
-- All that can fail is behind us.
if mine then
  if held[1] and ARGV[4] == '' then
    redis.pcall('LREM', held[1] .. ':intermediate', 0, mine)
    redis.call('DEL', held[1] .. ':intermediate:first_seen:' .. mine)
  end
  redis.call('HDEL', KEYS[5], mine)
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[4])
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[6], ARGV[1])
end
return 1
"""
)


@dataclass(frozen=True, slots=True)
class Registration:
    """What is kept of a worker for the case that it dies without a word.

    Args:
        life: id of its report.
        worker: its name.
        queues: names of its queues.
        process: its process.
        oom_kills: what the kernel had counted at its start, see :func:`machine.oom_kills`.
        scheduler: the name under which its scheduler holds locks; empty if it has none.
    """

    life: str
    worker: str
    queues: tuple[str, ...]
    process: Process
    oom_kills: int | None = None
    scheduler: str = ""

    @classmethod
    def here(cls, life: str, worker: str, queues: tuple[str, ...]) -> Registration:
        return cls(life, worker, queues, Process.here(), oom_kills())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Registration | None:
        """Read it back; None if it is none of ours."""
        try:
            fields = report_json.Fields(report_json.parse(text), "")
            process = report_json.Fields(fields.parsed.get("process"), "process.")
            pid = process.whole("pid")
            host = process.text("host") if process.parsed.get("host") else ""
            return (
                cls(
                    life=fields.name("life"),
                    worker=fields.name("worker"),
                    queues=fields.names("queues"),
                    process=Process(process.name("machine"), pid, process.text("started"), host),
                    oom_kills=_count(fields.parsed.get("oom_kills")),
                    scheduler=fields.name("scheduler") if fields.parsed.get("scheduler") else "",
                )
                if pid > 0
                else None
            )
        except UnreadableReport:
            return None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker hears at its own beat.

    Args:
        overdue: lives that have not beaten for too long.
        neighbours: lives on this machine, one's own included.
    """

    overdue: tuple[str, ...]
    neighbours: tuple[str, ...]


class Heartbeat:
    """One worker's heartbeat in Redis.

    Every method raises ``redis.exceptions.RedisError`` where Redis does not answer.

    Args:
        connection: the worker's client.
        registration: who it is.
    """

    def __init__(self, connection: redis.Redis, registration: Registration) -> None:
        self.registration = registration
        self._connection = connection
        self._beat = Script(connection, BEAT_SCRIPT)

    def beat(self) -> Heard:
        """Say that the worker lives."""
        life = self.registration.life
        overdue, neighbours = self._beat(
            keys=[WORKERS_KEY, BEATS_KEY, MACHINE_KEY.format(self.registration.process.machine)],
            args=[life, self.registration.to_json(), OVERDUE_SECONDS, MACHINE_SECONDS, JUDGE_SECONDS],
        )
        return Heard(_texts(overdue), _texts(neighbours))

    def register(self, registration: Registration) -> None:
        """More is known of the worker than at its start."""
        self.registration = registration
        text = registration.to_json()
        set_aside.retrying(
            self._connection, (WORKERS_KEY,), lambda: self._connection.hset(WORKERS_KEY, registration.life, text)
        )

    def check_types(self) -> None:
        """Set aside what stands under our keys and is of another type: before the first command that uses them."""
        machine = MACHINE_KEY.format(self.registration.process.machine)
        set_aside.wrong_types(self._connection, (*set_aside.TYPES, machine))

    def leave(self, *, archived: bool) -> None:
        """Take back all that was said of the worker; its journal entry too, once the report is ``archived``."""
        leave(self._connection, self.registration, archived=archived)


def _count(value: object) -> int | None:
    """A number that is only good for a comparison: a wrong one is as good as none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def look(connection: redis.Redis) -> Heard:
    """What a process hears that has no heartbeat of its own.

    It cannot know whether Redis was away all the time, so a worker is overdue only when it was already overdue at a
    look :data:`JUDGE_SECONDS` to :data:`SUSPECTS_SECONDS` ago, and has not been heard of since.

    Args:
        connection: a client of the server.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    overdue, neighbours = Script(connection, LOOK_SCRIPT)(
        keys=[BEATS_KEY, MACHINE_KEY.format(machine()), SUSPECTS_KEY],
        args=[OVERDUE_SECONDS, JUDGE_SECONDS, SUSPECTS_SECONDS],
    )
    return Heard(_texts(overdue), _texts(neighbours))


def forget_holders(connection: redis.Redis) -> None:
    """Remove from ``graceful:holders`` what no worker can hold any more.

    In the version before, what a dead worker held expired after a week, and who held it did not.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    connection.eval(FORGET_HOLDERS_SCRIPT, 2, WORKERS_KEY, HOLDERS_KEY, HELD_KEY.format(""))


def suspects(connection: redis.Redis) -> int:
    """How many workers :func:`look` has found silent, and does not judge yet.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    return int(connection.zcard(SUSPECTS_KEY))


def silent(connection: redis.Redis) -> list[Registration]:
    """Workers that are dead, as far as can be seen from here, and whose reports nobody has closed yet.

    Args:
        connection: a client of the server that they are on.

    Raises:
        redis.exceptions.RedisError: Redis did not answer.
    """
    workers: Any = set_aside.retrying(connection, (WORKERS_KEY,), lambda: connection.hgetall(WORKERS_KEY))
    now: Any = connection.time()
    heard: Any = set_aside.retrying(
        connection, (BEATS_KEY,), lambda: connection.zrange(BEATS_KEY, 0, -1, withscores=True)
    )
    beats = dict(heard)
    found = []
    for life, text in workers.items():
        registration = Registration.from_json(text)
        if registration is None:
            continue
        if registration.process.dead(overdue=now[0] - beats.get(life, 0.0) > OVERDUE_SECONDS):
            found.append(registration)
    return found


def leave(connection: redis.Redis, registration: Registration, *, archived: bool, job_seen_to: bool = False) -> None:
    """See :meth:`Heartbeat.leave`; ``job_seen_to`` if the caller has done with its job all that can be done."""
    Script(connection, LEAVE_SCRIPT)(
        keys=[
            WORKERS_KEY,
            BEATS_KEY,
            MACHINE_KEY.format(registration.process.machine),
            HELD_KEY.format(registration.life),
            HOLDERS_KEY,
            JOURNAL_KEY,
        ],
        args=[registration.life, "1" if archived else "", Job.redis_job_namespace_prefix, "1" if job_seen_to else ""],
    )


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode(*ENCODING) if isinstance(value, bytes) else str(value) for value in values)


def raw(life: str) -> bytes:
    """A life as it stands in Redis: one that is not ours may be no text at all."""
    return life.encode(*ENCODING)
