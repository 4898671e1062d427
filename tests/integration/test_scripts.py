"""Every Lua script does all that it does or nothing, whatever stands under the keys that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from graceful.reports.journal import JOURNAL_KEY, UNREADABLE_KEY
from graceful.reports.set_aside import SET_ASIDE
from graceful.worker.cluster.deregister import DEREGISTER_FROM_RQ_SCRIPT, DEREGISTER_SCRIPT, RELEASE_LOCKS_SCRIPT
from graceful.worker.cluster.heartbeat import HEARTBEAT_SCRIPT, OBSERVE_SCRIPT
from graceful.worker.cluster.poison import COUNT_SCRIPT, REQUEUE_POISON_SCRIPT
from graceful.worker.horse.cursor_store import SAVE_SCRIPT
from graceful.worker.queue.fetch import CLAIM_SCRIPT, FETCH_SCRIPT
from graceful.worker.queue.lua import WHOLE, counter
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD, REQUEUE_SCRIPT

QUEUE, HELD, HOLDERS, JOB = "rq:queue:q", "graceful:held:worker-id", "graceful:holders", "rq:job:j"
WORKERS, BEATS, MACHINE = "graceful:workers", "graceful:beats", "graceful:on:m"
STARTED, EXECUTIONS, EXECUTION, OF_WORKER = "rq:wip:q", "rq:executions:j", "rq:execution:j:e", "rq:worker:w:executions"
NUMBERS = (
    *("", "-1", "1.5", "1e3", "0x10", "nan", "inf", "many", " 1", "1 ", "1\n", "\xff", "\x00"),
    *("9223372036854775807", "-9223372036854775808", "9" * 5000),
)
"""What a counter must not be."""


@dataclass(frozen=True)
class Case:
    """One script and a state of the server in which it has everything to do."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Any, ...]
    state: dict[str, Any]

    def put(self, connection: redis.Redis) -> None:
        connection.flushall()
        for key, value in self.state.items():
            put(connection, key, value)

    def run(self, connection: redis.Redis) -> tuple[Any, Any]:
        """Its reply, or its error, and all that the server holds then."""
        try:
            reply = connection.eval(self.script, len(self.keys), *self.keys, *self.args)
        except ResponseError as error:
            reply = error
        return reply, everything(connection)


def put(connection: redis.Redis, key: str, value: Any) -> None:
    """A key with a value of the Redis type that stands for the Python type."""
    connection.delete(key)
    if isinstance(value, list):
        connection.rpush(key, *value)
    elif isinstance(value, set):
        connection.sadd(key, *value)
    elif isinstance(value, dict) and all(isinstance(score, float) for score in value.values()):
        connection.zadd(key, value)
    elif isinstance(value, dict):
        connection.hset(key, mapping=value)
    elif isinstance(value, tuple):
        connection.xadd(key, {"a": "b"}, id="1-1")
    else:
        connection.set(key, value)


def everything(connection: redis.Redis) -> dict[str, Any]:
    """All keys and values; of sorted sets the members alone, since the scores may be the time."""
    read: dict[str, Callable[[bytes], Any]] = {
        "hash": connection.hgetall,
        "list": lambda key: connection.lrange(key, 0, -1),
        "set": connection.smembers,
        "zset": lambda key: set(connection.zrange(key, 0, -1)),
        "stream": connection.xrange,
        "string": connection.get,
    }
    return {key.decode(): read[connection.type(key).decode()](key) for key in connection.scan_iter()}


RUNNING = {
    QUEUE: ["behind"],
    f"{QUEUE}:intermediate": ["j"],
    f"{QUEUE}:intermediate:first_seen:j": "1",
    JOB: {"status": "started", "worker_name": "w", INTERRUPTIONS_FIELD: "1"},
    STARTED: {"j:e": 1.0},
    EXECUTIONS: {"e": 1.0},
    EXECUTION: {"id": "e"},
    OF_WORKER: {"j:e"},
    HOLDERS: {"j": "worker-id"},
    HELD: {"fetch": "worker-id:0", "queue": QUEUE, "job": "j"},
}
KNOWN = {
    WORKERS: {"worker-id": '{"worker": "w", "life": "worker-id"}'},
    BEATS: {"worker-id": 1.0, "old": 1.0},
    MACHINE: {"worker-id"},
}
GIVE_BACK_KEYS = (
    *(QUEUE, f"{QUEUE}:intermediate", f"{QUEUE}:intermediate:first_seen:j", JOB, STARTED, EXECUTIONS, EXECUTION),
    *(OF_WORKER, HOLDERS, "rq:scheduled:q", "graceful:poison"),
)
GIVE_BACK_ARGS = ("j", "j:e", "e", INTERRUPTIONS_FIELD, 3, "worker-id", '{"ended": "killed"}', 10, 1000, "LPUSH")
GIVE_BACK = Case(REQUEUE_SCRIPT, GIVE_BACK_KEYS, GIVE_BACK_ARGS, RUNNING)
TOO_OFTEN = Case(REQUEUE_SCRIPT, GIVE_BACK_KEYS, (*GIVE_BACK_ARGS[:4], 1, *GIVE_BACK_ARGS[5:]), RUNNING)
FETCH = Case(
    FETCH_SCRIPT,
    (HELD, HOLDERS, "rq:queue:empty", "rq:queue:empty:intermediate", QUEUE, f"{QUEUE}:intermediate"),
    ("worker-id:1", "worker-id", 60, "rq:job:"),
    {
        **RUNNING,
        JOB: {"status": "finished"},
        HELD: {"fetch": "worker-id:0", "queue": "rq:queue:other", "job": "j"},
        "rq:queue:other:intermediate": ["j"],
    },
)
LEAVE = Case(
    DEREGISTER_SCRIPT,
    (WORKERS, BEATS, MACHINE, HELD, HOLDERS, JOURNAL_KEY),
    ("worker-id", "1", "rq:job:", ""),
    {**RUNNING, **KNOWN, JOB: {"status": "finished"}, JOURNAL_KEY: {"worker-id": "{}"}},
)
SAVE = Case(SAVE_SCRIPT, (JOB,), ("cursors", "[]"), RUNNING)
POISONED = {
    JOB: {"status": "failed", "origin": "q", INTERRUPTIONS_FIELD: "4", "graceful_attempts": "{}", "exc_info": "x"},
    "rq:failed:q": {"j": 1.0},
    QUEUE: ["before"],
    "graceful:poison": {"j": 1.0},
    "rq:queues": {QUEUE},
}
CASES = {
    "give back": GIVE_BACK,
    "too often": TOO_OFTEN,
    "fetch": FETCH,
    "fetch again": Case(FETCH_SCRIPT, FETCH.keys, ("worker-id:0", "worker-id", 60, "rq:job:"), RUNNING),
    "claim": Case(CLAIM_SCRIPT, (HELD, HOLDERS), ("worker-id", "j", 7, "started"), RUNNING),
    "beat": Case(HEARTBEAT_SCRIPT, (WORKERS, BEATS, MACHINE), ("new", "{}", 60, 600, 30), KNOWN),
    "look": Case(
        OBSERVE_SCRIPT,
        (BEATS, MACHINE, "graceful:suspects"),
        (60, 5, 120),
        {**KNOWN, "graceful:suspects": {"old": 1.0}},
    ),
    "leave": LEAVE,
    "forget": Case(
        DEREGISTER_FROM_RQ_SCRIPT,
        (WORKERS, "rq:worker:w", OF_WORKER, "rq:workers", "rq:workers:q"),
        ("worker-id", "w", 2),
        {**KNOWN, "rq:worker:w": {"a": "b"}, "rq:workers": {"rq:worker:w"}, "rq:workers:q": {"rq:worker:w"}},
    ),
    "release": Case(
        RELEASE_LOCKS_SCRIPT,
        ("rq:lock:a", "rq:lock:b", "rq:scheduler:s"),
        ("s",),
        {"rq:lock:a": "s", "rq:lock:b": "s", "rq:scheduler:s": {"a": "b"}},
    ),
    "count poison jobs": Case(COUNT_SCRIPT, ("graceful:poison",), ("rq:job:",), POISONED),
    "requeue a poison job": Case(
        REQUEUE_POISON_SCRIPT,
        (JOB, "rq:failed:q", QUEUE, "graceful:poison", "rq:queues"),
        ("j", "q", "2026-11-25T08:00:00.000000Z"),
        POISONED,
    ),
    "save": SAVE,
    "set aside": Case(
        SET_ASIDE, (JOURNAL_KEY, UNREADABLE_KEY), ("x", 2), {JOURNAL_KEY: {"x": "?"}, UNREADABLE_KEY: {"y": "?"}}
    ),
}
WRONG: dict[str, Any] = {
    "string": "?",
    "list": ["?"],
    "set": {"?"},
    "zset": {"?": 1.0},
    "hash": {"?": "?"},
    "stream": (),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_key_of_a_wrong_type_is_absent_or_stops_the_whole(case: Case, connection: redis.Redis) -> None:
    """Nothing is changed, or all is done that is done without that key; the key itself is left or replaced."""
    for key in case.keys:
        for kind, value in WRONG.items():
            case.put(connection)
            if kind == (connection.type(key).decode() if key in case.state else "list"):
                continue  # Of the right type; only queues are not there.
            while True:
                second = connection.time()[0]
                allowed = []
                for state in (case.state, {each: of for each, of in case.state.items() if each != key}):
                    Case(case.script, case.keys, case.args, state).put(connection)
                    allowed.append(case.run(connection)[1])
                case.put(connection)
                put(connection, key, value)
                before = everything(connection)
                reply, after = case.run(connection)
                if connection.time()[0] == second:
                    break  # Scripts write the server's time: the runs are comparable within one second only.
            if isinstance(reply, ResponseError):
                assert "WRONGTYPE" in str(reply), f"{key} is a {kind}: {reply}"
                assert after == before, f"{key} is a {kind}"
            else:
                rest = [{each: of for each, of in found.items() if each != key} for found in (after, *allowed)]
                assert rest[0] in rest[1:], f"{key} is a {kind}"


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("field", [INTERRUPTIONS_FIELD, "graceful_interruptions_before_progress"])
def test_a_job_with_an_unreadable_counter_is_requeued(connection: redis.Redis, field: str, value: str) -> None:
    """A counter that is no whole number in range counts as 0 and is counted from there; the job is in its queue."""
    GIVE_BACK.put(connection)
    connection.hset(JOB, INTERRUPTIONS_FIELD, 2)
    connection.hset(JOB, field, value)
    reply, after = GIVE_BACK.run(connection)
    count = 1 if field == INTERRUPTIONS_FIELD else 3
    assert reply == [b"given back", count]
    assert after[QUEUE] == [b"j", b"behind"]
    assert after[JOB][INTERRUPTIONS_FIELD.encode()] == str(count).encode()
    assert {STARTED, EXECUTIONS, EXECUTION, OF_WORKER, HOLDERS, f"{QUEUE}:intermediate"}.isdisjoint(after)


@pytest.mark.parametrize("value", [*NUMBERS, "0", "7", "007", "999999999", "1000000000"])
def test_python_reads_a_counter_as_the_scripts_do(connection: redis.Redis, value: str) -> None:
    """A process without a worker decides whether a job may be requeued by the number that the script will find."""
    connection.hset(JOB, "count", value)
    said = connection.hget(JOB, "count")
    assert counter(said) == connection.eval(WHOLE + "return whole(redis.call('HGET', KEYS[1], 'count'))", 1, JOB)
    assert counter(None) == 0


def test_progress_cannot_be_ahead_of_the_interruptions(connection: redis.Redis) -> None:
    """Progress that was made after more interruptions than there were is none: the limit holds."""
    GIVE_BACK.put(connection)
    connection.hset(JOB, mapping={INTERRUPTIONS_FIELD: "3", "graceful_interruptions_before_progress": "3"})
    assert GIVE_BACK.run(connection)[0] == [b"given back", 4]
    GIVE_BACK.put(connection)
    connection.hset(JOB, mapping={INTERRUPTIONS_FIELD: "3", "graceful_interruptions_before_progress": "999999"})
    assert GIVE_BACK.run(connection)[0] == [b"too many", 4]


@pytest.mark.parametrize("key", [f"{QUEUE}:intermediate", STARTED, EXECUTIONS, EXECUTION, OF_WORKER])
def test_a_broken_registry_does_not_keep_a_job_from_its_queue(connection: redis.Redis, key: str) -> None:
    """A key of RQ's that only lists the job stops nothing: it cannot have the job in it."""
    GIVE_BACK.put(connection)
    put(connection, key, "?")
    reply, after = GIVE_BACK.run(connection)
    assert reply == [b"given back", 2]
    assert after[QUEUE] == [b"j", b"behind"]


@pytest.mark.parametrize("value", NUMBERS)
def test_progress_is_saved_beside_an_unreadable_counter(connection: redis.Redis, value: str) -> None:
    """The cursors are saved, and the unreadable number is not copied."""
    SAVE.put(connection)
    connection.hset(JOB, INTERRUPTIONS_FIELD, value)
    _, after = SAVE.run(connection)
    assert after[JOB][b"cursors"] == b"[]"
    assert b"graceful_interruptions_before_progress" not in after[JOB]


@pytest.mark.parametrize("case", [FETCH, LEAVE, GIVE_BACK], ids=["fetch", "leave", "give back"])
@pytest.mark.parametrize("value", ["", "\xff", "\x00", "graceful:workers", "x" * 100_000, "given back", "9" * 400])
def test_any_value_of_any_field(connection: redis.Redis, case: Case, value: str) -> None:
    """No value that stands in a hash makes a script fail half-way: it answers, and goes on with the rest."""
    for key in (HELD, HOLDERS, JOB):
        for field in case.state[key]:
            case.put(connection)
            put(connection, f"{value}:intermediate", "no list")
            put(connection, f"rq:job:{value}", "no hash")
            connection.hset(key, field, value)
            reply, _ = case.run(connection)
            assert not isinstance(reply, ResponseError), (key, field)


def test_the_unreadable_entries_have_a_bound(connection: redis.Redis) -> None:
    """The number of unreadable entries kept is bounded."""
    case = CASES["set aside"]
    case.put(connection)
    for number in range(4):
        connection.hset(JOURNAL_KEY, "x", "?")
        connection.hset(JOURNAL_KEY, f"x{number}", "?")
        connection.eval(SET_ASIDE, 2, JOURNAL_KEY, UNREADABLE_KEY, f"x{number}", 2)
    assert connection.hlen(UNREADABLE_KEY) == 2
    assert connection.hkeys(JOURNAL_KEY) == [b"x"]
