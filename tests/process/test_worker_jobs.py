"""A job's own behaviour is unchanged: the graceful worker does with it what RQ documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Job

from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.waiting import wait_until
from tests.support.worker_hooks import notes

ALL_CLASSES = ["rq.Worker", "rq.SimpleWorker", "rq.worker.SpawnWorker"]


def wait_status(worker: WorkerProcess, job: Job, *statuses: str) -> str:
    """Wait until the job is in one of the states; returns it."""

    def reached() -> str | None:
        status = job.get_status(refresh=True)
        return str(status.value) if status in statuses else None

    def described() -> str:
        return f"job {job.id} is {statuses}, not {job.get_status()}; output:\n{worker.output}"

    return wait_until(reached, 20, described) or ""


def called(connection: redis.Redis) -> list[str]:
    return [each.decode() for each in connection.lrange(jobs.CALLED, 0, -1)]


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_results_callbacks_retries_and_dependents(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Results, callbacks, retries and dependents are those of a stock worker."""
    success, failure = Callback(jobs.on_success), Callback(jobs.on_failure)
    good = queue.enqueue(jobs.quick, {"a": [1, 2]}, on_success=success, on_failure=failure)
    dependent = queue.enqueue(jobs.quick, "after", depends_on=good)
    bad = queue.enqueue(jobs.failing, "oh no", on_success=success, on_failure=failure)
    orphan = queue.enqueue(jobs.quick, "never", depends_on=bad)
    retried = queue.enqueue(worker_jobs.fails_at_first, 2, retry=Retry(max=2), on_failure=failure)
    asking = queue.enqueue(worker_jobs.asks_for_a_retry)
    forgotten = queue.enqueue(jobs.quick, result_ttl=0)
    late = queue.enqueue(jobs.sleeping, 30, job_timeout=1, on_failure=failure)
    last = queue.enqueue(jobs.quick, "last")
    worker = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert worker.wait(60) == 0, worker.output

    assert good.return_value() == {"a": [1, 2]}
    assert [job.get_status(refresh=True) for job in (good, dependent, bad, orphan)] == [
        "finished",
        "finished",
        "failed",
        "deferred",
    ]
    assert "ValueError: oh no" in (bad.latest_result().exc_string or "")
    assert (retried.get_status(refresh=True), retried.return_value()) == ("finished", "done")
    assert (asking.get_status(refresh=True), asking.return_value()) == ("finished", "done")
    assert not Job.exists(forgotten.id, connection)
    assert late.get_status(refresh=True) == "failed"
    assert "JobTimeoutException" in (late.latest_result().exc_string or "")
    assert last.get_status(refresh=True) == "finished"
    # RQ calls the failure callback at each try.
    expected = [f"success:{good.id}", f"failure:{bad.id}", f"failure:{late.id}", *[f"failure:{retried.id}"] * 2]
    assert sorted(called(connection)) == sorted(expected)
    left = [good.id, dependent.id, bad.id, orphan.id, retried.id, asking.id, late.id, last.id]
    balance(connection, left).assert_balanced()
    # good, dependent, retried, asking, forgotten, last; bad, late and the tries of the two that were retried.
    report = report_of(connection, worker)
    assert report.jobs.finished + report.jobs.failed == 11
    assert report.jobs.in_flight == ()
    assert connection.keys("graceful:held*") == []
    assert connection.keys("graceful:holders") == []


def test_results_callbacks_and_dependents_of_spawned_horses(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """They are the same with spawned horses."""
    good = queue.enqueue(jobs.quick, [1], on_success=Callback(jobs.on_success))
    dependent = queue.enqueue(jobs.quick, "after", depends_on=good, result_ttl=0)
    bad = queue.enqueue(jobs.failing, "oh no", on_failure=Callback(jobs.on_failure))
    worker = start_worker(options=["--burst", "--worker-class", "rq.worker.SpawnWorker"], wait=False)
    assert worker.wait(60) == 0, worker.output
    assert good.return_value() == [1]
    assert not Job.exists(dependent.id, connection)
    assert "ValueError: oh no" in (bad.latest_result().exc_string or "")
    assert called(connection) == [f"success:{good.id}", f"failure:{bad.id}"]
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (2, 1)


def test_retries_with_an_interval_and_repeated_jobs(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Scheduled retries and repeats run when they are due."""
    from rq import Repeat

    worker = start_worker(options=["--with-scheduler"])
    retried = queue.enqueue(worker_jobs.fails_at_first, 1, retry=Retry(max=1, interval=1))
    repeated = queue.enqueue(jobs.quick, repeat=Repeat(times=1, interval=1))
    wait_until(lambda: retried.get_status(refresh=True) == "scheduled", 10, lambda: worker.output)
    wait_status(worker, retried, "finished")
    wait_until(lambda: int(connection.hget(jobs.STARTED, repeated.id) or 0) == 2, 20, lambda: worker.output)
    wait_status(worker, repeated, "finished")
    worker.signal()
    assert worker.wait(10) == 0
    balance(connection, [retried.id, repeated.id]).assert_balanced()


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.worker.SpawnWorker"])
def test_stop_job(worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """RQ's stop-job command stops the job and runs its stopped callback."""
    worker = start_worker(options=["--worker-class", worker_class])
    stopped = queue.enqueue(jobs.sleeping, 60, on_stopped=Callback(jobs.on_stopped), retry=Retry(max=2))
    wait_until(lambda: connection.hget(jobs.STARTED, stopped.id), 10, lambda: worker.output)
    send_stop_job_command(connection, stopped.id)
    wait_status(worker, stopped, "stopped")
    wait_until(lambda: called(connection) == [f"stopped:{stopped.id}"])
    after = queue.enqueue(jobs.quick)
    wait_status(worker, after, "finished")
    # And while the worker is already on its way out.
    second = queue.enqueue(jobs.sleeping, 60, on_stopped=Callback(jobs.on_stopped))
    wait_until(lambda: connection.hget(jobs.STARTED, second.id), 10, lambda: worker.output)
    worker.signal()
    wait_until(lambda: report_of(connection, worker).phase == "draining")
    send_stop_job_command(connection, second.id)
    assert worker.wait(5) == 0, worker.output
    assert second.get_status(refresh=True) == "stopped"
    assert called(connection) == [f"stopped:{stopped.id}", f"stopped:{second.id}"]


def test_jobs_that_are_deleted_or_canceled_in_the_queue(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Deleted and canceled jobs in the queue are skipped."""
    before, deleted, canceled, vanished, after = (queue.enqueue(jobs.quick, number) for number in range(5))
    deleted.delete()
    canceled.cancel()
    connection.delete(vanished.key)  # Its id stays in the queue: its hash has expired, for instance.
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert [job.get_status(refresh=True) for job in (before, canceled, after)] == ["finished", "canceled", "finished"]
    assert queue.count == 0
    assert connection.llen(queue.intermediate_queue_key) == 0
    assert connection.keys("graceful:held*") == []


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.worker.SpawnWorker"])
def test_a_horse_that_dies_is_a_failure(
    worker_class: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A job whose horse dies fails and is not requeued."""
    killed, exited = queue.enqueue(jobs.killing_itself), queue.enqueue(jobs.exiting, 3)
    silent, again = queue.enqueue(jobs.exiting, 0), queue.enqueue(os._exit, 0, retry=Retry(max=1))
    after = queue.enqueue(jobs.quick)
    worker = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert worker.wait(30) == 0, worker.output
    assert [job.get_status(refresh=True) for job in (killed, exited, silent, again, after)] == [
        *["failed"] * 4,
        "finished",
    ]
    assert "signal 9" in (killed.latest_result().exc_string or "")
    assert "exit code 0" in (silent.latest_result().exc_string or "")
    assert int(connection.hget(jobs.STARTED, silent.id) or 0) == 1
    report = report_of(connection, worker)
    assert (report.jobs.finished, report.jobs.failed) == (1, 5), "the last one was tried twice"
    balance(connection, [killed.id, exited.id, silent.id, again.id, after.id]).assert_balanced()


@pytest.mark.parametrize("worker_class", ALL_CLASSES)
def test_no_database_connection_is_inherited(
    worker_class: str, shared_database: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Horses do not inherit database connections."""
    first, second = queue.enqueue(worker_jobs.database_connections), queue.enqueue(worker_jobs.database_connections)
    worker = start_worker(options=["--burst", "--worker-class", worker_class], wait=False)
    assert worker.wait(30) == 0, worker.output
    assert first.return_value() == {"open": [], "files": [], "one": 1}
    if worker_class != "rq.SimpleWorker":  # There the second job finds, as ever, what the first one has opened.
        assert second.return_value() == {"open": [], "files": [], "one": 1}


def test_exit_hooks_are_the_workers_alone(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Child processes of a job do not run the worker's exit hooks."""
    path = tmp_path / "notes"
    settings = {
        "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.exit_note"],
        "GRACEFUL_HORSE_EXIT_HOOKS": ["tests.support.worker_hooks.horse_note"],
    }
    job = queue.enqueue(worker_jobs.with_children, str(tmp_path))
    bad = queue.enqueue(jobs.failing)
    simple = queue.enqueue(worker_jobs.with_children, str(tmp_path))
    environment = {"TEST_NOTES": str(path)}
    worker = start_worker(options=["--max-jobs", "2"], settings=settings, environment=environment, wait=False)
    assert worker.wait(30) == 0, worker.output
    assert len(job.return_value() or ()) == 4
    assert bad.get_status(refresh=True) == "failed"
    assert [note["pid"] for note in notes(path, "exit")] == [worker.pid]
    horses = [note["pid"] for note in notes(path, "horse")]
    assert len(set(horses)) == 2, "one in each horse"
    assert not set(horses) & {worker.pid, *job.return_value()}
    # The same where there is no horse.
    path.unlink()
    worker = start_worker(
        options=["--burst", "--worker-class", "rq.SimpleWorker"],
        settings=settings,
        environment=environment,
        wait=False,
    )
    assert worker.wait(30) == 0, worker.output
    assert len(simple.return_value() or ()) == 4
    assert [note["pid"] for note in notes(path, "exit")] == [worker.pid]
    assert [note["pid"] for note in notes(path, "horse")] == [worker.pid]
