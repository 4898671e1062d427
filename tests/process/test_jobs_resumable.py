"""Resumable jobs in real workers, under real signals: the second worker goes on where the first one stopped."""

from __future__ import annotations

import json
import os
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Group
from rq import Queue, Repeat, Retry
from rq.job import Job

from graceful.jobs import progress
from graceful.resume.cursors import FIELD
from tests.conftest import StartWorker
from tests.support import resumable_jobs as jobs
from tests.support.job_accounting import balance
from tests.support.reports import report_of
from tests.support.waiting import wait_until

ROWS = 400
CLASSES = [f"graceful.worker.Graceful{kind}" for kind in ("Worker", "SimpleWorker", "SpawnWorker")]


def done(connection: redis.Redis, job: Job) -> list[int]:
    """The items that the job has worked at, in order, over all its runs."""
    return [int(each) for each in connection.lrange(jobs.ITEMS + job.id, 0, -1)]


def fields(connection: redis.Redis, job: Job) -> set[str]:
    return {name.decode() for name in connection.hkeys(job.key) if name.startswith(b"graceful")}


@pytest.fixture
def rows(shared_database: str) -> list[int]:
    """Keys of rows that a worker process sees too."""
    Group.objects.bulk_create(Group(name=f"group {number}") for number in range(ROWS))
    return list(Group.objects.order_by("pk").values_list("pk", flat=True))


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_second_worker_goes_on_where_the_first_was_stopped(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int], worker_class: str
) -> None:
    """The next worker continues where the stopped one interrupted the job."""
    job = queue.enqueue(jobs.over_groups, 0.005)
    for _ in range(2):
        before = len(done(connection, job))
        first = start_worker(options=["--worker-class", worker_class])
        wait_until(lambda at=before: len(done(connection, job)) > at + 40, 20, "the job gets on")
        first.signal(SIGTERM)
        assert first.wait(10) == os.EX_TEMPFAIL, first.output
        assert queue.job_ids == [job.id]
        saved = progress(job)[0]
        assert (saved.done, saved.total) == (len(done(connection, job)), ROWS)
    second = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert second.wait(30) == 0, second.output
    assert done(connection, job) == rows
    assert job.get_status() == "finished"
    kept = {"graceful_interruptions", "graceful_interruptions_before_progress", "graceful_attempts"}
    assert fields(connection, job) <= kept


def test_it_gives_the_worker_back_at_once(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """A resumable job ends within its item when a shutdown is requested, far below the grace period."""
    job = queue.enqueue(jobs.over_groups, 0.005)
    worker = start_worker()
    wait_until(lambda: done(connection, job), 20)
    worker.signal(SIGTERM)
    assert worker.wait(5) == os.EX_TEMPFAIL, worker.output


def test_a_row_that_is_interrupted_in_its_middle_is_the_only_one_repeated(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """Of a job interrupted at the soft limit only the row in progress is repeated."""
    slow = rows[30]
    job = queue.enqueue(jobs.over_groups, 0.001, slow)
    limits = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}
    worker = start_worker(settings=limits)
    wait_until(lambda: slow in done(connection, job), 20)
    worker.signal(SIGTERM)
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    connection.set(jobs.QUICK, 1)
    assert start_worker(options=["--burst"], wait=False).wait(30) == 0
    assert done(connection, job) == [*rows[:31], *rows[30:]]


def test_a_kill_costs_what_was_done_since_the_last_saving(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """After SIGKILL the next run repeats what was done since the last save, and no more."""
    job = queue.enqueue(jobs.over_groups, 0.005, None, 0.1)
    first = start_worker()
    wait_until(lambda: len(done(connection, job)) > 100, 20)
    first.signal_session(SIGKILL)
    first.wait(5)
    first.clear()
    before = done(connection, job)
    saved = json.loads(connection.hget(job.key, FIELD) or "{}")["loops"]["default"]["done"]
    assert len(before) - saved < 60  # 0.1 s of rows that take 5 ms each, and a slow machine.
    if job.id not in queue.job_ids:  # Whoever finds the job puts it back; here we do, not to wait for that.
        queue.started_job_registry.remove_executions(job)
        queue.enqueue_job(job)
    assert start_worker(options=["--burst"], wait=False).wait(30) == 0
    assert done(connection, job) == [*before, *rows[saved:]]
    assert job.get_status() == "finished"


def test_more_interruptions_than_are_allowed_do_not_fail_a_job_that_gets_on(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """Interruptions before progress do not count towards the limit."""
    job = queue.enqueue(jobs.over_groups, 0.005)
    for _ in range(3):
        at = len(done(connection, job))
        worker = start_worker(settings={"GRACEFUL_MAX_INTERRUPTIONS": 1})
        wait_until(lambda at=at: len(done(connection, job)) > at + 5, 20, "the job gets on")
        worker.signal(SIGTERM)
        assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    assert queue.job_ids == [job.id]
    assert connection.hget(job.key, "graceful_interruptions") == b"3"


def test_a_job_that_gets_nowhere_fails_in_the_end(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """A job without progress fails after the allowed interruptions."""
    job = queue.enqueue(jobs.over_groups, 0.001, rows[20])
    settings = {
        "GRACEFUL_MAX_INTERRUPTIONS": 1,
        "GRACEFUL_TIMEOUT": 3.0,
        "GRACEFUL_HOOKS_TIMEOUT": 1.0,
        "GRACEFUL_INTERRUPT_TIMEOUT": 1.0,
    }
    for times in (1, 2, 3):
        worker = start_worker(settings=settings)
        wait_until(lambda times=times: done(connection, job).count(rows[20]) == times, 20, "the item that hangs")
        worker.signal(SIGTERM)
        worker.wait(10)
        if job.get_status() == "failed":
            break
    # The first interruption came after progress.
    assert (job.get_status(), times) == ("failed", 2)


def test_a_retry_goes_on_and_a_repetition_starts_over(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """A retry continues at the cursor; a repetition starts over."""
    failing = queue.enqueue(jobs.over_groups, 0.0, None, 5.0, rows[50], retry=Retry(1))
    assert start_worker(options=["--burst"], wait=False).wait(30) == 0
    assert done(connection, failing) == [*rows[:51], *rows[50:]]
    repeated = queue.enqueue(jobs.over_groups, 0.0, repeat=Repeat(1))
    assert start_worker(options=["--burst"], wait=False).wait(30) == 0
    assert done(connection, repeated) == rows * 2


def test_a_job_with_two_loops_does_not_repeat_the_first(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """A finished first loop is not repeated when the second is interrupted."""
    job = queue.enqueue(jobs.two_loops, 100, 0.005)
    worker = start_worker()
    wait_until(lambda: len(done(connection, job)) > ROWS + 10, 20)
    worker.signal(SIGTERM)
    assert worker.wait(10) == os.EX_TEMPFAIL, worker.output
    assert start_worker(options=["--burst"], wait=False).wait(30) == 0
    assert done(connection, job) == [*rows, *range(100)]
    assert job.return_value() == sum(range(100))


def test_a_job_that_fails_when_interrupted_is_left_its_time(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """A job with ``on_interrupt("fail")`` may finish until the soft limit."""
    job = queue.enqueue(jobs.not_twice, 0.003)
    worker = start_worker()
    wait_until(lambda: done(connection, job), 20)
    worker.signal(SIGTERM)
    assert worker.wait(20) == 0, worker.output
    assert (job.get_status(), done(connection, job)) == ("finished", rows)


def test_a_job_that_was_deleted_does_not_come_back(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """Saving the cursor does not recreate a deleted job."""
    job = queue.enqueue(jobs.over_groups, 0.005)
    worker = start_worker()
    wait_until(lambda: len(done(connection, job)) > 20, 20)
    connection.delete(job.key)
    worker.signal(SIGTERM)
    worker.wait(10)
    assert not connection.exists(job.key)


def test_nothing_is_lost_or_doubled_over_many_interruptions(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, rows: list[int]
) -> None:
    """Over many interruptions every item is done, and none twice."""
    all_jobs: list[Any] = [queue.enqueue(jobs.over_groups, 0.001) for _ in range(3)]
    interruptions = 0
    while any(job.get_status() != "finished" for job in all_jobs):
        at = sum(len(done(connection, job)) for job in all_jobs)
        worker = start_worker()
        wait_until(
            lambda at=at: (
                sum(len(done(connection, job)) for job in all_jobs) > at + 150
                or all(job.get_status() == "finished" for job in all_jobs)
            ),
            20,
            "the jobs get on",
        )
        worker.signal(SIGTERM)
        worker.wait(10)
        interruptions += 1
        assert interruptions < 20
    assert [done(connection, job) for job in all_jobs] == [rows] * 3
    balance(connection, [job.id for job in all_jobs]).assert_balanced()


@pytest.mark.parametrize("worker_class", CLASSES)
def test_long_jobs_take_turns(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, worker_class: str
) -> None:
    """Jobs over their max_runtime go to the end of the queue, in turn, without it being counted, and all finish."""
    several = [queue.enqueue(jobs.in_turns, name, 20, 0.1) for name in ("a", "b")]
    short = queue.enqueue(jobs.in_turns, "short", 1, 60)
    settings = {"GRACEFUL_MAX_INTERRUPTIONS": 0}
    worker = start_worker(options=["--burst", "--worker-class", worker_class], settings=settings, wait=False)
    assert worker.wait(60) == 0, worker.output
    assert [job.get_status() for job in (*several, short)] == ["finished"] * 3
    order = [tuple(each.decode().split(":")) for each in connection.lrange("tests:order", 0, -1)]
    assert sorted(name for name, _ in order) == ["a"] * 20 + ["b"] * 20 + ["short"]
    turns = list(dict.fromkeys(order))
    assert len(turns) == len({turn for _, turn in turns})
    assert [name for name, _ in turns[:5]] == ["a", "b", "short", "a", "b"]
    assert fields(connection, several[0]) == set()
    assert "has run for its max_runtime, and is at the end of its queue" in worker.output


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_stop_that_meets_a_job_whose_turn_is_over(
    start_worker: StartWorker, queue: Queue, connection: redis.Redis, worker_class: str
) -> None:
    """Nobody has interrupted it: the shutdown is clean, and neither its report nor the job counts an interruption."""
    job = queue.enqueue(jobs.leaves_slowly, "go")
    worker = start_worker(options=["--worker-class", worker_class])
    wait_until(lambda: connection.exists("tests:leaving"), 20, lambda: worker.output)
    worker.signal(SIGTERM)
    worker.wait_output("shutdown requested")
    connection.rpush("go", 1)
    assert worker.wait(10) == 0, worker.output
    assert queue.job_ids == [job.id]
    assert fields(connection, job) == {FIELD}
    report = report_of(connection, worker)
    assert (report.outcome, report.jobs.in_flight) == ("clean", ())
