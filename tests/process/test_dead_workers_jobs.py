"""A dead worker's job, while everybody else looks at RQ's registries: never failed, requeued once, done once."""

from __future__ import annotations

import json
import pickle
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command
from rq import Callback, Queue, Retry
from rq.job import Job, JobStatus

from graceful.core.phases import JobOutcome, Outcome
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive
from graceful.worker.cluster.heartbeat import JUDGE_SECONDS, OVERDUE_SECONDS, SUSPECTS_KEY
from graceful.worker.cluster.registration import MACHINE_KEY, WORKERS_KEY
from graceful.worker.queue.fetch import HELD_KEY, HELD_SECONDS, HOLDERS_KEY
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.passers_by import everybody_looks, let_pass
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
CLASSES = "tests.support.dying_workers."


def kill_at_work(
    start_worker: StartWorker, queue: Queue, function: Any = jobs.once_long, *args: Any, **enqueue: Any
) -> Job:
    """The job of a worker that was killed together with its horse."""
    job = queue.enqueue(function, *args, on_failure=Callback(jobs.on_failure), **enqueue)
    worker = start_worker()
    wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id), 10)
    worker.kill_session()
    queue.connection.hdel(jobs.RUNNING, job.id)
    return job


def move_to_another_machine(connection: redis.Redis) -> str:
    """The one registered worker's machine is another; returns its worker id."""
    ((worker_id, text),) = connection.hgetall(WORKERS_KEY).items()
    registration = json.loads(text)
    connection.srem(MACHINE_KEY.format(registration["process"]["machine"]), worker_id)
    registration["process"]["machine"] = "another"
    connection.hset(WORKERS_KEY, worker_id, json.dumps(registration))
    return str(worker_id.decode())


def let_the_registry_expire(connection: redis.Redis, queue: Queue) -> None:
    """As the version before left it 150 s after a worker's death: RQ's entry is overdue, and the rest is gone."""
    for member in connection.zrange(queue.started_job_registry.key, 0, -1):
        connection.zadd(queue.started_job_registry.key, {member: 1})
    for key in (*connection.keys("rq:execution:*"), *connection.keys("rq:executions:*")):
        connection.delete(key)


def assert_done_once(connection: redis.Redis, job: Job) -> None:
    """It was interrupted once and then finished; no retry was consumed, no callback ran, and its report is closed."""
    balance(connection, [job.id]).assert_balanced()
    job.refresh()
    assert job.get_status() == JobStatus.FINISHED
    assert int(connection.hget(job.key, INTERRUPTIONS_FIELD) or 0) == 1
    assert connection.hget(jobs.STARTED, job.id) == b"2"
    assert connection.lrange(jobs.CALLED, 0, -1) == []
    assert job.retries_left in (None, 3)
    assert [each.type.name for each in job.results()] == ["SUCCESSFUL"]
    assert connection.hgetall(HOLDERS_KEY) == {}
    assert connection.keys(HELD_KEY.format("*")) == []
    (closed,) = ArchivedReport.objects.filter(outcome=Outcome.KILLED)
    record = archive.read(closed.pk)
    assert record is not None
    assert [(each.id, each.outcome) for each in record.jobs.in_flight] == [(job.id, JobOutcome.KILLED)]


@pytest.mark.parametrize("silent", [0, 75, 95, 120, 170, 3600, 24 * 3600])
def test_nobody_else_fails_a_dead_workers_job(
    silent: int, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """While no graceful worker lives, pages, scrapes and stock workers do not fail a dead worker's job."""
    job = kill_at_work(start_worker, queue, retry=Retry(3))
    let_pass(connection, silent)
    for _ in range(2):
        everybody_looks(connection, queue)
        assert job.get_status() == JobStatus.STARTED
        let_pass(connection, 5)
    stock = start_worker(options=["--burst"], command="rqworker", wait=False)
    assert stock.wait() == 0, stock.output
    assert job.get_status() == JobStatus.STARTED
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert_done_once(connection, job)


@pytest.mark.parametrize("silent", [95, 120, 170])
@pytest.mark.parametrize("gone", ["execution", "both"])
def test_a_worker_that_starts_when_rqs_entries_expire_requeues_the_job(
    silent: int, gone: str, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """Of the version before, an execution's hash is gone after 90 s, and its place in the index only after 150 s."""
    job = kill_at_work(start_worker, queue)
    for key in (*connection.keys("rq:execution:*"), *(connection.keys("rq:executions:*") if gone == "both" else ())):
        connection.delete(key)
    let_pass(connection, silent)
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert_done_once(connection, job)


@pytest.mark.parametrize("name", ["KilledBeforeStart", "KilledAtFork"])
def test_a_job_that_was_taken_and_not_started_is_not_failed(
    name: str, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """RQ's maintenance does not fail a held job in the intermediate queue."""
    job = queue.enqueue(jobs.quick, on_failure=Callback(jobs.on_failure))
    start_worker(options=["--worker-class", CLASSES + name], wait=False).wait()
    for _ in range(3):
        everybody_looks(connection, queue)
        let_pass(connection, 900)
    assert connection.zcard(queue.failed_job_registry.key) == 0
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    assert connection.hget(jobs.STARTED, job.id) == b"1"
    assert connection.lrange(jobs.CALLED, 0, -1) == []
    assert connection.keys("*first_seen*") == []


def test_a_job_that_rqs_clean_up_has_failed_is_requeued(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A job that RQ's clean-up failed after its worker, of the previous version, was killed is requeued."""
    job = kill_at_work(start_worker, queue)
    let_the_registry_expire(connection, queue)
    everybody_looks(connection, queue)
    assert job.get_status() == JobStatus.FAILED
    connection.delete(jobs.CALLED)  # The callback has run, and cannot be undone.
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert_done_once(connection, job)
    assert connection.zcard(queue.failed_job_registry.key) == 0


def test_without_a_worker_archive_reports_requeues_the_job(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """``archive_reports`` requeues a dead worker's job while no worker lives."""
    job = kill_at_work(start_worker, queue)
    out = StringIO()
    call_command("archive_reports", stdout=out)
    assert "reports of dead workers closed: 1" in out.getvalue()
    assert queue.job_ids == [job.id]
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert_done_once(connection, job)
    assert "closed by archive_reports" in ArchivedReport.objects.get(outcome=Outcome.KILLED).notes


def test_without_a_worker_the_silent_are_judged_at_a_second_look(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker, client: Any, admin_user: Any
) -> None:
    """Without a worker, overdue workers are judged at a second check only."""
    job = kill_at_work(start_worker, queue)
    move_to_another_machine(connection)
    let_pass(connection, OVERDUE_SECONDS + 5)
    client.force_login(admin_user)

    def look() -> None:
        assert client.get("/admin/graceful/shutdownreport/").status_code == 200

    look()
    wait_until(lambda: connection.zcard(SUSPECTS_KEY) == 1, 5)
    assert connection.hlen(WORKERS_KEY) == 1
    let_pass(connection, JUDGE_SECONDS + 1)
    look()
    wait_until(lambda: queue.job_ids == [job.id], 5)
    wait_until(lambda: ArchivedReport.objects.filter(outcome=Outcome.KILLED).count() == 1, 5)
    assert "closed by the admin" in ArchivedReport.objects.get().notes


def test_without_a_worker_a_job_that_must_not_be_repeated_waits_for_one(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """Without a worker, a job that may have to be failed is neither requeued nor failed."""
    job = kill_at_work(start_worker, queue, worker_jobs.must_not_be_repeated, 30)
    call_command("archive_reports", stdout=StringIO())
    assert (queue.job_ids, job.get_status()) == ([], JobStatus.STARTED)
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status() == JobStatus.FAILED
    assert connection.hget(jobs.STARTED, job.id) == b"1"
    assert ArchivedReport.objects.filter(outcome=Outcome.KILLED).count() == 1


@pytest.mark.parametrize("repeatable", [False, True])
def test_the_policy_of_a_job_that_an_older_version_held(
    repeatable: bool, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """It is in the payload alone, and holds all the same: in a rolling deploy versions stand beside each other."""
    arguments: tuple[Any, ...] = (jobs.once_long,) if repeatable else (worker_jobs.must_not_be_repeated, 30)
    job = kill_at_work(start_worker, queue, *arguments)
    (held,) = connection.keys("graceful:held:*")
    assert connection.hdel(held, "policy", "function") == 2
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    if repeatable:
        assert_done_once(connection, job)
    else:
        assert (job.get_status(), connection.hget(jobs.STARTED, job.id)) == (JobStatus.FAILED, b"1")


@pytest.mark.parametrize("count", ["many", "1.5", "9" * 5000, "1000000000"])
def test_without_a_worker_a_job_with_an_unreadable_counter_is_requeued(
    count: str, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A counter that no worker wrote counts as 0, as in the scripts: the job does not wait for a worker."""
    job = kill_at_work(start_worker, queue)
    connection.hset(job.key, "graceful_interruptions", count)
    call_command("archive_reports", stdout=StringIO())
    assert queue.job_ids == [job.id]
    assert connection.hget(job.key, "graceful_interruptions") == b"1"


def test_the_entries_of_a_running_job_last_and_go_with_it(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """RQ's entries of a running job are kept alive, and removed at its end."""
    job = queue.enqueue(jobs.until_released, "tests:release")
    worker = start_worker(options=["--worker-class", CLASSES + "Hasty"])
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10)
    ((member, _),) = connection.zrange(queue.started_job_registry.key, 0, -1, withscores=True)
    first = connection.hget(f"rq:execution:{member.decode()}", "last_heartbeat")
    wait_until(lambda: connection.hget(f"rq:execution:{member.decode()}", "last_heartbeat") != first, 10)
    now = connection.time()[0]
    assert connection.zscore(queue.started_job_registry.key, member) > now + HELD_SECONDS - 60
    assert connection.ttl(f"rq:execution:{member.decode()}") > HELD_SECONDS - 60
    assert 0 < connection.ttl(worker.key) <= 600
    connection.rpush("tests:release", "now")
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 10)
    worker.signal()
    assert worker.wait() == 0, worker.output
    assert connection.keys("rq:execution*") == []
    assert connection.zcard(queue.started_job_registry.key) == 0


def test_a_heartbeat_that_comes_after_the_jobs_end_leaves_nothing(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """RQ's heartbeat makes the execution's hash anew, with nothing else in it: it is removed again."""
    job = queue.enqueue(jobs.until_released, "tests:release")
    worker = start_worker(options=["--worker-class", CLASSES + "LateHeartbeat"])
    assert connection.blpop(["tests:late"], 15)
    connection.rpush("tests:release", "now")
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 10)
    worker.signal()
    assert worker.wait() == 0, worker.output
    assert connection.keys("rq:execution*") == []
    assert connection.zcard(queue.started_job_registry.key) == 0


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_without_a_worker_nothing_is_unpickled(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A process that is no worker never unpickles a job."""
    job = kill_at_work(start_worker, queue)
    payload = pickle.dumps(Touches(tmp_path / "unpickled"))
    connection.hset(job.key, mapping={"data": payload, "meta": payload, "success_callback_name": payload})
    call_command("archive_reports", stdout=StringIO())
    assert queue.job_ids == [job.id]
    assert not (tmp_path / "unpickled").exists()
    pickle.loads(payload)
    assert (tmp_path / "unpickled").exists()
