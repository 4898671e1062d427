"""What pages and commands read from Redis for a deploy, and what is moved from there to the reports."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from rq.job import Job

from graceful.core.phases import JobOutcome, Outcome, Phase
from graceful.core.records import InFlightJob, JobTally, utc_now
from graceful.models import ReportedJob
from graceful.reports.archive import store
from graceful.reports.deploys.records import JobEnd
from graceful.reports.journal import Journal
from graceful.reports.resumed import BATCH, EXPIRE_SECONDS, RESUMED_KEY, Resumed, move, note_end, note_start, read
from graceful.worker.cluster.whole_fleet import living_workers, where_now
from tests.db.samples import a_report
from tests.support.server import Server
from tests.support.waiting import wait_until

NOW = utc_now()
JOB = InFlightJob("job-1", "shop.f", "default", JobOutcome.INTERRUPTED, 1.0, 1)
RUN = Resumed("job-1", 1, NOW, "w2", "2")


def test_the_living_workers(connection: redis.Redis) -> None:
    """Workers whose reports are open, on every server, once each."""
    journal = Journal(connection)
    journal.write(a_report(id="gone"))
    living = a_report(id="here", outcome=None, exit_code=None, phase=Phase.DRAINING, ended_at=None)
    journal.write(living)
    found = living_workers(5.0)
    assert found.known
    (member,) = found.workers
    assert (member.id, member.worker, member.living, member.stopping) == ("here", living.worker, True, True)


def test_redis_is_away(own_valkey: Server) -> None:
    """An unreachable or hanging Redis costs no more than the given time, and is said to be so."""
    own_valkey.stop()
    assert not living_workers(1.0).known
    own_valkey.start()
    own_valkey.pause()
    try:
        began = time.monotonic()
        assert not living_workers(0.5).known
        assert where_now([JobEnd("r", "w", "j", "f", "q", "interrupted")], 0.5)[0].now == ""
        assert time.monotonic() - began < 5
    finally:
        own_valkey.resume()


def test_where_a_job_is_now(connection: redis.Redis) -> None:
    """A job whose next run nobody noted is looked for in Redis; what stands there is not unpickled."""
    stopped = JobEnd("r", "w", "j", "f", "q", "interrupted", stopped_at=NOW)
    assert where_now([stopped], 2.0)[0].now == "gone"
    fields = {"status": "queued", "started_at": (NOW - timedelta(seconds=9)).isoformat(), "data": b"\x80evil"}
    connection.hset(Job.key_for("j"), mapping=fields)
    assert (where_now([stopped], 2.0)[0].now, where_now([stopped], 2.0)[0].again_at) == ("queued", None)
    again = {"status": "finished", "started_at": (NOW + timedelta(seconds=9)).isoformat(), "worker_name": "w2"}
    connection.hset(Job.key_for("j"), mapping=again)
    (found,) = where_now([stopped], 2.0)
    assert (found.waited, found.again_worker, found.again_outcome) == (9.0, "w2", "finished")
    connection.delete(Job.key_for("j"))
    connection.set(Job.key_for("j"), "no hash")
    assert where_now([stopped], 2.0)[0] == stopped


def test_a_job_that_two_shutdowns_interrupted(connection: redis.Redis) -> None:
    """In a rolling deploy the next worker may be stopped over the same job: each report's line stays its own."""
    first = JobEnd("r1", "w1", "j", "f", "q", "interrupted", stopped_at=NOW, stack="here")
    second = replace(
        first, report="r2", worker="w2", interruptions=1, stopped_at=NOW + timedelta(seconds=9), stack="there"
    )
    connection.hset(Job.key_for("j"), mapping={"status": "queued"})
    assert where_now([first, second], 2.0) == (replace(first, now="queued"), replace(second, now="queued"))


@pytest.mark.django_db(transaction=True)
def test_a_next_run_is_moved_to_the_report(connection: redis.Redis) -> None:
    """It waits for its report, is stored while it runs and again at its end, and then leaves Redis."""
    note_start(connection, RUN)
    assert 0 < connection.ttl(RESUMED_KEY) <= EXPIRE_SECONDS
    assert move(connection, 5.0) == 0
    report = a_report(id="r1", outcome=Outcome.INTERRUPTED, jobs=JobTally(0, 0, (JOB, JOB._replace(id="other"))))
    assert store(report, seconds=5.0)
    assert move(connection, 5.0) == 0
    row = ReportedJob.objects.get(job_id="job-1")
    assert (row.again_worker, row.again_release, row.again_outcome) == ("w2", "2", "")
    # A second start with the same count, as of a retry, is not the run that is told of.
    retried = RUN._replace(worker="w3", at=NOW + timedelta(seconds=3))
    note_start(connection, retried)
    assert read("job-1:1", connection.hget(RESUMED_KEY, "job-1:1") or b"") == RUN
    note_end(connection, retried, JobOutcome.FAILED, NOW + timedelta(seconds=4))
    note_end(connection, RUN, JobOutcome.FINISHED, NOW + timedelta(seconds=2))
    assert move(connection, 5.0) == 1
    row.refresh_from_db()
    assert (row.again_worker, row.again_outcome, row.again_ended_at) == ("w2", "finished", NOW + timedelta(seconds=2))
    assert not connection.exists(RESUMED_KEY)
    assert ReportedJob.objects.get(job_id="other").again_at is None


@pytest.mark.django_db(transaction=True)
def test_entries_that_nobody_wants(connection: redis.Redis) -> None:
    """Unreadable entries and those whose report never came are removed; a foreign key is set aside by the next note."""
    old = {"at": (NOW - timedelta(days=2)).isoformat()}
    hostile: dict[str, Any] = {
        "a": "{}",
        "b:1": "[" * 3000,
        "c:1": json.dumps({"at": "x"}),
        "d:1": b"\xff",
        "e:x": json.dumps(old),
        "f\x00:1": json.dumps(old),
        "g:1": json.dumps({**old, "worker": 7}),
        "h:1": json.dumps({**old, "outcome": "never"}),
        "i:1": json.dumps(old),
        "j:1": json.dumps({"at": (NOW + timedelta(days=2)).isoformat()}),
    }
    connection.hset(RESUMED_KEY, mapping=hostile)
    assert move(connection, 5.0) == len(hostile)
    assert not connection.exists(RESUMED_KEY)
    connection.set(RESUMED_KEY, "a string")
    note_start(connection, RUN)
    (field,), (value,) = connection.hkeys(RESUMED_KEY), connection.hvals(RESUMED_KEY)
    assert read(field, value) == RUN


@pytest.mark.django_db(transaction=True)
def test_runs_that_take_long_hide_no_other(connection: redis.Redis) -> None:
    """The end of a run is moved however many other runs are not over yet, and in bounded steps."""
    for number in range(5 * BATCH):
        note_start(connection, RUN._replace(job=f"long-{number}"))
    assert store(a_report(id="r1", outcome=Outcome.INTERRUPTED, jobs=JobTally(0, 0, (JOB,))), seconds=5.0)
    note_start(connection, RUN)
    note_end(connection, RUN, JobOutcome.FINISHED, NOW)
    wait_until(lambda: move(connection, 5.0) == 1, 60)
    assert ReportedJob.objects.get(job_id="job-1").again_outcome == "finished"
    assert connection.hlen(RESUMED_KEY) == 5 * BATCH
