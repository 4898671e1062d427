"""What our scripts find that the model's worlds do not come to: Redis has lost its last writes, or another has the job.

``tests/model/mutants.py`` names these tests, as those that find a line of a script taken away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis

from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.integration.test_scripts import (
    CASES,
    FETCH,
    GIVE_BACK,
    HELD,
    HOLDERS,
    JOB,
    LEAVE,
    QUEUE,
    RUNNING,
    Case,
    everything,
    put,
)

OTHER = "rq:queue:other"


def _unchanged(case: Case, connection: redis.Redis) -> Any:
    """The reply of a script that must not change anything."""
    case.put(connection)
    before = everything(connection)
    reply, after = case.run(connection)
    assert after == before
    return reply


@pytest.mark.parametrize("status", ["started", "queued"])
def test_a_fetch_gives_a_job_again_whose_end_redis_has_lost(connection: redis.Redis, status: str) -> None:
    """A job that Redis believes unfinished and held is handed out as forgotten; no other is taken."""
    held = {**RUNNING[HELD], "fetch": "before"}
    case = replace(FETCH, state={**RUNNING, JOB: {"status": status}, HELD: held})
    assert _unchanged(case, connection) == [QUEUE.encode(), b"j", b"forgotten"]


def test_a_repeated_fetch_gives_the_same_job(connection: redis.Redis) -> None:
    """A fetch with the number of the last one takes nothing, whatever has become of the job."""
    held = {**RUNNING[HELD], "fetch": FETCH.args[0]}
    case = replace(FETCH, state={**FETCH.state, JOB: {"status": "finished"}, HELD: held})
    assert _unchanged(case, connection) == [QUEUE.encode(), b"j", b"taken"]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_fetch_clears_away_the_job_before(connection: redis.Redis, waiting: bool) -> None:
    """Of a job that is over nothing stays in the intermediate queue, nor RQ's note of when it was first seen."""
    state = {**FETCH.state, f"{OTHER}:intermediate:first_seen:j": "1"}
    if not waiting:
        del state[QUEUE]
    case = replace(FETCH, state=state)
    case.put(connection)
    _, after = case.run(connection)
    assert {f"{OTHER}:intermediate", f"{OTHER}:intermediate:first_seen:j"}.isdisjoint(after)


def test_leaving_with_a_job_whose_end_redis_has_lost(connection: redis.Redis) -> None:
    """A worker does not deregister while Redis believes its job unfinished: a reaper requeues it."""
    case = replace(LEAVE, state={**LEAVE.state, JOB: {"status": "started"}})
    assert _unchanged(case, connection) == 0


@pytest.mark.parametrize("settled", ["", "1"])
def test_leaving_clears_the_intermediate_queue(connection: redis.Redis, settled: str) -> None:
    """Of a finished job nothing stays; of one that somebody else has settled nothing is touched but the holder."""
    case = replace(LEAVE, args=(*LEAVE.args[:3], settled))
    case.put(connection)
    reply, after = case.run(connection)
    assert reply == 1
    assert (f"{QUEUE}:intermediate" in after) is (settled == "1")
    assert HOLDERS not in after


def test_a_requeue_leaves_the_job_of_another_worker_alone(connection: redis.Redis) -> None:
    """A late requeue changes nothing where another worker holds the job."""
    case = replace(GIVE_BACK, state={**RUNNING, HOLDERS: {"j": "another"}})
    assert _unchanged(case, connection) == [b"not held", 1]


def test_a_requeue_of_a_job_that_is_gone(connection: redis.Redis) -> None:
    """A deleted job is reported as gone, and is not put into a queue; neither is one that is no hash."""
    for value in (None, "text"):
        GIVE_BACK.put(connection)
        connection.delete(JOB)
        if value:
            put(connection, JOB, value)
        reply, after = GIVE_BACK.run(connection)
        assert reply[0] == b"gone"
        assert after[QUEUE] == [b"behind"]
        assert HOLDERS not in after


def test_a_requeue_of_a_job_that_is_in_its_queue(connection: redis.Redis) -> None:
    """A job that is held and in its queue, put there by a user, is there once."""
    case = replace(GIVE_BACK, state={**RUNNING, JOB: {"status": "queued"}, QUEUE: ["behind", "j"]})
    case.put(connection)
    reply, after = case.run(connection)
    assert reply[0] == b"in its queue"
    assert after[QUEUE] == [b"behind", b"j"]


def test_a_requeued_job_does_not_expire(connection: redis.Redis) -> None:
    """A time to live that the job's hash had is taken away."""
    GIVE_BACK.put(connection)
    connection.expire(JOB, 100)
    GIVE_BACK.run(connection)
    assert connection.ttl(JOB) == -1


def test_a_name_that_another_worker_has_by_now(connection: redis.Redis) -> None:
    """RQ's entries of a dead worker stay where another worker has its name."""
    case = CASES["forget"]
    workers = {"another": '{"worker": "w", "life": "another"}'}
    assert _unchanged(replace(case, state={**case.state, "graceful:workers": workers}), connection) == 0


@pytest.mark.parametrize("case", [FETCH, LEAVE], ids=["fetch", "leave"])
def test_an_intermediate_queue_of_another_type_does_not_hold_a_job(case: Case, connection: redis.Redis) -> None:
    """A queued job counts as unfinished only where RQ's intermediate queue is one and lists it."""
    held = {**RUNNING[HELD], "queue": OTHER}
    case = replace(case, state={**case.state, JOB: {"status": "queued"}, HELD: held, f"{OTHER}:intermediate": "text"})
    case.put(connection)
    reply, after = case.run(connection)
    assert reply in (1, [QUEUE.encode(), b"behind", b"taken"])
    assert b"j" not in after.get(HOLDERS, {})


def test_a_claimed_job_is_under_rqs_maintenance_again(connection: redis.Redis) -> None:
    """The note that kept RQ's maintenance from a job just fetched goes when the job begins."""
    case = CASES["claim"]
    case.put(connection)
    reply, after = case.run(connection)
    assert reply
    assert f"{QUEUE}:intermediate:first_seen:j" not in after


@pytest.mark.parametrize(("count", "reply"), [("2", 3), ("", 1), ("many", 1), ("-1", 1)])
def test_a_claim_tells_of_interruptions(connection: redis.Redis, count: str, reply: int) -> None:
    """A claim returns one more than the interruptions; a counter that is no number is 0."""
    case = CASES["claim"]
    keys = (HELD, HOLDERS, "graceful:autopsy:none", JOB)
    case = replace(case, keys=keys, state={**RUNNING, JOB: {INTERRUPTIONS_FIELD: count}})
    case.put(connection)
    assert case.run(connection)[0] == reply
    put(connection, JOB, "text")
    assert case.run(connection)[0] == 1
