"""The horse: what may be done to it, what it may do to its worker, and classes that run jobs in another way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Callback, Queue, Repeat

from graceful.core.phases import JobOutcome, Outcome, Reason
from tests.conftest import StartWorker
from tests.process.test_worker_jobs import called, wait_status
from tests.support import horse_workers, jobs
from tests.support.job_accounting import balance
from tests.support.reports import report_of
from tests.support.waiting import wait_until

MODULE = "tests.support.horse_workers"
SHORT = {"GRACEFUL_TIMEOUT": 3.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}


def test_a_job_stopped_before_its_horse_is_forked(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job that is stopped before it has a horse becomes "stopped", and its worker goes on with the next."""
    stopped = [queue.enqueue(jobs.napping, 30) for _ in range(5)]
    worker = start_worker(options=["--worker-class", f"{MODULE}.StoppedAtFork"])
    for job in stopped:
        wait_status(worker, job, "stopped")
    assert worker.running
    assert all(connection.hget(jobs.FINISHED, job.id) is None for job in stopped)


@pytest.mark.parametrize("how", [jobs.failing, jobs.killing_itself], ids=lambda how: how.__name__)
def test_a_failure_that_redis_was_not_told_of(
    how: object, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job whose failure could not be stored, by its horse or by its worker, is requeued; it does not stay started."""
    job = queue.enqueue(how)
    worker = start_worker(options=["--worker-class", f"{MODULE}.LosesAFailure"])
    wait_status(worker, job, "failed")
    assert int(connection.get("tests:failures") or 0) == 2
    assert int(connection.hget(job.key, "graceful_interruptions") or 0) == 1
    assert connection.zcard(f"rq:wip:{queue.name}") == 0


def test_a_success_that_nobody_could_confirm(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job whose success was stored, with no reply, does not become a failure because Redis cannot be asked either."""
    job, after = queue.enqueue(jobs.quick), queue.enqueue(os.getpid)
    worker = start_worker(options=["--burst", "--worker-class", f"{MODULE}.LosesASuccess"], wait=False)
    assert worker.wait(30) == 0, worker.output
    assert [each.get_status(refresh=True) for each in (job, after)] == ["finished", "finished"]
    assert connection.zcard(f"rq:failed:{queue.name}") == 0
    assert int(connection.hget(jobs.STARTED, job.id) or 0) == 1


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "finished:default"),
        ({"repeat": Repeat(times=1, interval=3600)}, "scheduled:default"),
        ({"result_ttl": 0}, None),
        ({"description": "cancelled"}, "canceled:default"),
    ],
    ids=["plain", "repeats", "no-result", "cancelled"],
)
def test_a_success_without_a_reply(
    options: dict[str, Any], place: str | None, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A success whose reply is lost does not become a failure, whatever has become of the job."""
    job = queue.enqueue(jobs.quick, **options)
    worker = start_worker(options=["--burst", "--worker-class", f"{MODULE}.LosesTheReplyOfASuccess"], wait=False)
    assert worker.wait(30) == 0, worker.output
    places = balance(connection, [job.id]).places.get(job.id, ())
    assert place in places if place else not places, places
    assert "failed:default" not in places
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (1, 0)


def test_a_horse_in_the_group_of_its_worker(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job that joined its worker's process group is killed at the hard limit, and its worker is not."""
    job = queue.enqueue(horse_workers.joins_the_worker, 30)
    worker = start_worker(settings=SHORT)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 20, lambda: worker.output)
    worker.signal()
    assert worker.wait(8) == os.EX_TEMPFAIL, worker.output
    assert [each.outcome for each in report_of(connection, worker).jobs.in_flight] == [JobOutcome.KILLED]
    assert balance(connection, [job.id]).places == {job.id: ("queue:default",)}


@pytest.mark.parametrize("deed", ["exit", "leave", "crash"])
@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.worker.SpawnWorker"])
def test_a_payload_that_ends_its_process(
    deed: str, worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job whose unpickling ends the process fails, as with a stock worker; the worker goes on with the next job."""
    bad = [queue.enqueue(jobs.quick, horse_workers.Payload(deed), description="bad") for _ in range(2)]
    good = queue.enqueue(jobs.quick, 7)
    worker = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert worker.wait(40) == os.EX_OK, worker.output
    assert [job.get_status(refresh=True) for job in (*bad, good)] == ["failed", "failed", "finished"], worker.output
    assert f"unpickled in {worker.pid}:" not in worker.output
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (1, 2)


def test_a_payload_that_hangs(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job whose unpickling hangs is killed at the hard limit, counts as interrupted, and is named in the report."""
    job = queue.enqueue(jobs.quick, horse_workers.Payload("hang"), description="bad")
    worker = start_worker(settings=SHORT)
    worker.wait_output("unpickled in")
    worker.signal()
    assert worker.wait(8) == os.EX_TEMPFAIL, worker.output
    assert f"unpickled in {worker.pid}:" not in worker.output
    ((outcome, function, interruptions),) = [
        (each.outcome, each.function, each.interruptions) for each in report_of(connection, worker).jobs.in_flight
    ]
    assert (outcome, function, interruptions) == (JobOutcome.KILLED, "?", 1)
    assert queue.job_ids == [job.id]


def test_a_payload_that_hangs_until_it_fails(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job that is interrupted too often fails without being unpickled in the worker."""
    job = queue.enqueue(
        jobs.quick, horse_workers.Payload("hang"), description="bad", on_failure=Callback(jobs.on_failure)
    )
    worker = start_worker(settings={**SHORT, "GRACEFUL_MAX_INTERRUPTIONS": 0})
    worker.wait_output("unpickled in")
    worker.signal()
    assert worker.wait(8) == os.EX_TEMPFAIL, worker.output
    assert f"unpickled in {worker.pid}:" not in worker.output
    assert [each.outcome for each in report_of(connection, worker).jobs.in_flight] == [JobOutcome.INTERRUPTION_FAILED]
    assert job.get_status(refresh=True) == "failed"
    assert "TooManyInterruptions" in (job.exc_info or "")
    assert called(connection) == [f"failure:{job.id}"]


def test_what_a_reaper_knows_of_a_job(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A reaper names a dead worker's job, and fails one that must not be started again, without unpickling it."""
    job = queue.enqueue(horse_workers.must_not_start_again, horse_workers.Payload("nothing"), description="job")
    worker = start_worker()
    wait_until(lambda: connection.hget(jobs.STARTED, job.id), 20, lambda: worker.output)
    worker.signal_session(signal.SIGKILL)
    worker.wait()
    reaper = start_worker(options=["--burst"], wait=False)
    assert reaper.wait() == os.EX_OK, reaper.output
    assert f"unpickled in {reaper.pid}:" not in reaper.output
    assert job.get_status(refresh=True) == "failed"
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.function == f"{MODULE}.must_not_start_again"
    assert in_flight.outcome is JobOutcome.INTERRUPTION_FAILED


@pytest.mark.parametrize("worker_class", ["InThreads", "SimpleInThreads"])
def test_a_class_that_hands_jobs_to_threads(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A class that hands jobs to threads is served as stock serves it: each job runs once, and is counted."""
    many = [queue.enqueue(jobs.sleeping, 1) for _ in range(3)]
    bad = queue.enqueue(jobs.failing)
    worker = start_worker(options=["--burst", "--worker-class", f"{MODULE}.{worker_class}"], wait=False)
    assert worker.wait(30) == os.EX_OK, worker.output
    assert [job.get_status(refresh=True) for job in (*many, bad)] == ["finished"] * 3 + ["failed"]
    assert [int(connection.hget(jobs.STARTED, job.id) or 0) for job in many] == [1, 1, 1]
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (3, 1)
    assert connection.keys("graceful:hold*") == []
    assert queue.intermediate_queue.get_job_ids() == []


def test_a_hard_limit_before_the_horse_is_forked(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job whose hard limit is reached before it has a horse is killed and requeued."""
    job = queue.enqueue(jobs.stubborn, 60)
    worker = start_worker(options=["--worker-class", f"{MODULE}.KilledAtFork"], wait=False)
    assert worker.wait(15) == os.EX_TEMPFAIL, worker.output
    assert job.get_status(refresh=True) == "queued"
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert in_flight.outcome is JobOutcome.KILLED


def test_a_burst_waits_for_jobs_in_threads_without_limit(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker that ends by itself is in no hurry: jobs in threads may take longer than the grace period."""
    job = queue.enqueue(jobs.sleeping, SHORT["GRACEFUL_TIMEOUT"] + 1)
    worker = start_worker(options=["--burst", "--worker-class", f"{MODULE}.InThreads"], settings=SHORT, wait=False)
    assert worker.wait(30) == os.EX_OK, worker.output
    assert job.get_status(refresh=True) == "finished"
    assert report_of(connection, worker).jobs.finished == 1


def test_a_class_with_its_own_loop(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A loop of the user's own that comes to its end is no crash."""
    job = queue.enqueue(jobs.quick)
    worker = start_worker(options=["--worker-class", f"{MODULE}.OwnLoop"], wait=False)
    assert worker.wait(30) == os.EX_OK, worker.output
    assert job.get_status(refresh=True) == "finished"
    report = report_of(connection, worker)
    assert (report.reason, report.outcome, report.jobs.finished) == (Reason.EXIT, Outcome.CLEAN, 1)


@pytest.mark.parametrize("worker_class", ["InThreads", "SimpleInThreads"])
def test_jobs_in_threads_at_a_shutdown(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A shutdown waits for jobs in threads up to the hard limit; the report tells of those that it left running."""
    short, long = queue.enqueue(jobs.sleeping, 1.2), queue.enqueue(jobs.sleeping, 60)
    worker = start_worker(options=["--worker-class", f"{MODULE}.{worker_class}"], settings=SHORT)
    for job in (short, long):
        wait_until(lambda job=job: connection.hget(jobs.STARTED, job.id), 20, lambda: worker.output)
    worker.signal()
    assert worker.wait(8) == os.EX_TEMPFAIL, worker.output
    assert short.get_status(refresh=True) == "finished"
    assert {each.id: each.outcome for each in report_of(connection, worker).jobs.in_flight} == {
        short.id: JobOutcome.FINISHED,
        long.id: JobOutcome.UNKNOWN,
    }
    assert long.get_status(refresh=True) == "started"
    scores = [score for _, score in connection.zrange(queue.started_job_registry.key, 0, -1, withscores=True)]
    assert max(scores, default=0) < time.time() + 600, "RQ's maintenance would not find it for long"


@pytest.mark.parametrize("worker_class", ["ExecutesNothing", "PerformsNothing", "HorseGoes"])
def test_a_class_that_does_nothing_with_a_job(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job of which nothing is known stays where RQ's maintenance finds it, and is taken once."""
    left = [queue.enqueue(jobs.quick) for _ in range(3)]
    worker = start_worker(options=["--burst", "--worker-class", f"{MODULE}.{worker_class}"], wait=False)
    assert worker.wait(30) == os.EX_OK, worker.output
    ids = [job.id for job in left]
    assert [job.get_status(refresh=True) for job in left] == ["queued"] * 3
    assert queue.intermediate_queue.get_job_ids() == ids
    assert all(worker.output.count(f"({job_id})") == 1 for job_id in ids), worker.output
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (0, 0)
    assert connection.keys("graceful:hold*") == []
    assert connection.keys("*:first_seen:*") == []
    scores = [score for _, score in connection.zrange(queue.started_job_registry.key, 0, -1, withscores=True)]
    assert max(scores, default=0) < time.time() + 600, "RQ's maintenance would not find it for long"


def test_horses_that_cannot_begin(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job whose horses cannot begin is tried again after a growing wait, and counts for max jobs once it ran."""
    connection.set("tests:no-horse", 1)
    job = queue.enqueue(jobs.quick, 7)
    options = ["--max-jobs", "1", "--worker-class", f"{MODULE}.CannotBegin"]
    worker = start_worker(options=options, wait=False)
    worker.wait_output("2 times in a row; next job in 1.0 s")
    assert worker.output.count("default: tests.support.jobs.quick") == 2
    connection.delete("tests:no-horse")
    assert worker.wait(20) == os.EX_OK, worker.output
    assert job.return_value() == 7
    assert connection.hget(job.key, "graceful_interruptions") is None


def test_a_signal_ends_the_wait_after_horses_that_cannot_begin(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker that waits because horses cannot begin stops at once, with the job in its queue."""
    connection.set("tests:no-horse", 1)
    job = queue.enqueue(jobs.quick, 7)
    worker = start_worker(options=["--worker-class", f"{MODULE}.CannotBegin"], wait=False)
    worker.wait_output("4 times in a row; next job in 4.0 s")
    worker.signal()
    assert worker.wait(3) == os.EX_OK, worker.output
    assert queue.job_ids == [job.id]


def test_a_spawned_horse_that_cannot_load_django(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A job whose spawned horse gives up while it starts is requeued and tried again, uncounted."""
    no_settings = tmp_path / "no-settings"
    environment = {"DJANGO_SETTINGS_MODULE": "tests.support.settings_at_times", "TEST_NO_SETTINGS": str(no_settings)}
    options = ["--max-jobs", "1", "--worker-class", "rq.worker.SpawnWorker"]
    worker = start_worker(options=options, environment=environment)
    no_settings.touch()
    job = queue.enqueue(jobs.quick, 7)
    worker.wait_output("1 times in a row")
    no_settings.unlink()
    assert worker.wait(20) == os.EX_OK, worker.output
    assert job.return_value() == 7
    assert connection.hget(job.key, "graceful_interruptions") is None


def test_a_job_whose_horses_never_begin_fails(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job whose horses cannot begin time and again fails in the end, with the reason."""
    connection.set("tests:no-horse", 1)
    job = queue.enqueue(jobs.quick, 7)
    options = ["--burst", "--worker-class", f"{MODULE}.CannotBeginQuickly"]
    worker = start_worker(options=options, settings={"GRACEFUL_MAX_INTERRUPTIONS": 2}, wait=False)
    assert worker.wait(30) == os.EX_OK, worker.output
    assert job.get_status(refresh=True) == "failed"
    assert "its work horse could not start" in (job.exc_info or "")
    assert worker.output.count("the work horse could not begin") == 7
