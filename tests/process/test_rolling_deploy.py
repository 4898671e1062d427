"""A rolling deploy, and its roll-back: real workers of the version before and of this one on the same queues."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job

from graceful.core.phases import JobOutcome, Outcome
from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive
from graceful.reports.journal import JOURNAL_KEY, Journal
from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY
from tests.conftest import StartWorker
from tests.support import jobs, previous_version
from tests.support.job_accounting import balance
from tests.support.processes import DjangoProcess, WorkerProcess
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
Start = Callable[..., WorkerProcess]
SHORT = {"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}
OLD, NEW = "the version before", "this version"
HASTY = {OLD: previous_version.HASTY, NEW: "tests.support.dying_workers.Hasty"}
both_ways = pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)], ids=["deploy", "roll-back"])


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What makes a process run one of the two versions."""
    return {OLD: previous_version.unpack(tmp_path_factory.mktemp("previous")), NEW: {}}


@pytest.fixture
def start(start_worker: StartWorker, environments: dict[str, dict[str, str]]) -> Start:
    """Start a worker of one of the two versions."""

    def start_version(version: str, *arguments: object, **process: object) -> WorkerProcess:
        environment = {**environments[version], **process.pop("environment", {})}  # type: ignore[dict-item]
        return start_worker(*arguments, environment=environment, **process)  # type: ignore[arg-type]

    return start_version


def reports() -> dict[str, int]:
    """The exit code that each archived report says, by the worker's name."""
    return dict(ArchivedReport.objects.values_list("worker", "exit_code"))


def running(connection: redis.Redis, job: Job) -> bool:
    return connection.hget(jobs.RUNNING, job.id) == b"1"


def traces(connection: redis.Redis) -> list[str]:
    """Keys that say something of a worker and do not expire by themselves."""
    kinds = (b"graceful:", b"rq:workers", b"rq:wip")
    return sorted(key.decode() for key in connection.keys("*") if key.startswith(kinds) and connection.ttl(key) == -1)


def kill_at_work(start: Start, version: str, queue: Queue) -> tuple[WorkerProcess, Job]:
    """A worker that was killed together with its horse, and the job that it held."""
    job = queue.enqueue(jobs.once_long)
    worker = start(version)
    wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id), 10, lambda: worker.output)
    worker.kill_session()
    return worker, job


@both_ways
def test_side_by_side(first: str, second: str, start: Start, connection: redis.Redis, queue: Queue) -> None:
    """Workers of one version replace those of the other under load: no job is lost, runs twice at once, or fails."""
    leaving = [start(first, settings=SHORT) for _ in range(2)]
    long = [queue.enqueue(jobs.once_long) for _ in leaving]
    for job in long:
        wait_until(lambda job=job: running(connection, job), 10)  # type: ignore[misc]
    staying = [start(second) for _ in range(3)]
    short = [queue.enqueue(jobs.napping, 0.02) for _ in range(20)]
    leaving.append(start(first, settings=SHORT))  # Shares the queue with the others, and is idle at the signal.
    wait_until(lambda: not queue.job_ids, 20)
    for worker in leaving:
        worker.signal(signal.SIGTERM)
    assert [worker.wait() for worker in leaving] == [os.EX_TEMPFAIL, os.EX_TEMPFAIL, os.EX_OK]
    short += [queue.enqueue(jobs.napping, 0.02) for _ in range(20)]
    for job in (*long, *short):
        wait_until(lambda job=job: job.get_status(refresh=True) == "finished", 20)  # type: ignore[misc]
    for worker in staying:
        worker.signal(signal.SIGTERM)
    assert [worker.wait() for worker in staying] == [os.EX_OK] * 3
    books = balance(connection, [job.id for job in (*long, *short)])
    books.assert_balanced()
    assert books.started == {job.id: 2 for job in long} | {job.id: 1 for job in short}
    assert reports() == {worker.name: worker.exit_code for worker in (*leaving, *staying)}
    assert traces(connection) == []


@both_ways
def test_a_killed_worker_of_this_machine(
    first: str, second: str, start: Start, connection: redis.Redis, queue: Queue
) -> None:
    """The report of a killed worker is closed by a worker of the other version, which requeues the job and runs it."""
    killed, job = kill_at_work(start, first, queue)
    reaper = start(second, options=["--burst"], wait=False)
    assert reaper.wait() == os.EX_OK, reaper.output
    assert job.get_status(refresh=True) == "finished", reaper.output
    archived = ArchivedReport.objects.get(worker=killed.name)
    assert archived.outcome == Outcome.KILLED
    record = archive.read(archived.pk)
    assert record is not None
    assert [(each.id, each.outcome) for each in record.jobs.in_flight] == [(job.id, JobOutcome.KILLED)]
    assert reports()[reaper.name] == os.EX_OK
    assert balance(connection, [job.id]).started == {job.id: 2}
    assert traces(connection) == []


@both_ways
def test_a_killed_worker_of_another_machine(
    first: str, second: str, start: Start, connection: redis.Redis, queue: Queue
) -> None:
    """A worker that runs already notices the overdue heartbeat of one of the other version, and requeues its job."""
    killed, job = kill_at_work(start, first, queue)
    ((worker_id, text),) = connection.hgetall(WORKERS_KEY).items()
    registration = json.loads(text)
    connection.delete(MACHINE_KEY.format(registration["process"]["machine"]))
    registration["process"]["machine"] = "elsewhere/1"
    connection.hset(WORKERS_KEY, worker_id, json.dumps(registration))
    reaper = start(second, ["low"], ["--worker-class", HASTY[second]])
    assert connection.hexists(WORKERS_KEY, worker_id), "it may live, nobody here can know"
    connection.zadd(HEARTBEATS_KEY, {worker_id: int(connection.time()[0]) - OVERDUE_SECONDS - 1})
    wait_until(lambda: not connection.hexists(WORKERS_KEY, worker_id), 10, lambda: reaper.output)
    assert queue.job_ids == [job.id]
    assert ArchivedReport.objects.get(worker=killed.name).outcome == Outcome.KILLED
    reaper.signal(signal.SIGTERM)
    assert reaper.wait() == os.EX_OK == reports()[reaper.name]


@both_ways
def test_a_worker_that_lives(first: str, second: str, start: Start, connection: redis.Redis, queue: Queue) -> None:
    """A living worker of the other version is left alone, however overdue its heartbeat is; so is its job."""
    job = queue.enqueue(jobs.until_released, "release")
    worker = start(first)
    wait_until(lambda: running(connection, job), 10, lambda: worker.output)
    (worker_id,) = connection.hkeys(WORKERS_KEY)
    connection.zadd(HEARTBEATS_KEY, {worker_id: 1})
    other = start(second, options=["--burst"], wait=False)
    assert other.wait() == os.EX_OK, other.output
    assert connection.hexists(WORKERS_KEY, worker_id)
    connection.rpush("release", 1)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == os.EX_OK
    assert balance(connection, [job.id]).started == {job.id: 1}
    assert reports() == {worker.name: os.EX_OK, other.name: os.EX_OK}


@pytest.fixture
def interrupted(start: Start, connection: redis.Redis, queue: Queue) -> Callable[[str], tuple[WorkerProcess, Job]]:
    """A worker of a version whose job was interrupted, and whose report waits in the journal: no table to store it."""

    def interrupt(version: str) -> tuple[WorkerProcess, Job]:
        job = queue.enqueue(jobs.once_long)
        worker = start(version, settings=SHORT, environment={"DATABASE_URL": "sqlite://"})
        wait_until(lambda: running(connection, job), 10, lambda: worker.output)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == os.EX_TEMPFAIL, worker.output
        assert reports() == {}
        return worker, job

    return interrupt


def assert_told_in_full(record: ShutdownReport | None, worker: WorkerProcess, job: Job) -> None:
    assert record is not None
    (in_flight,) = record.jobs.in_flight
    assert (record.worker, record.exit_code, record.outcome) == (worker.name, worker.exit_code, Outcome.INTERRUPTED)
    assert (in_flight.id, in_flight.outcome, in_flight.interruptions) == (job.id, JobOutcome.INTERRUPTED, 1)
    assert "in once_long" in in_flight.stack


def test_a_report_of_the_version_before(
    interrupted: Callable[[str], tuple[WorkerProcess, Job]], connection: redis.Redis
) -> None:
    """A journal entry of the version before is archived by this one, with all that it tells."""
    worker, job = interrupted(OLD)
    assert archive.archive_pending(Journal(connection), 10) == 1
    assert_told_in_full(archive.read(ArchivedReport.objects.get().pk), worker, job)
    assert not connection.exists(JOURNAL_KEY)


def test_a_report_of_this_version(
    interrupted: Callable[[str], tuple[WorkerProcess, Job]],
    environments: dict[str, dict[str, str]],
    shared_database: str,
    connection: redis.Redis,
    valkey: Server,
    tmp_path: Path,
) -> None:
    """A journal entry of this version is archived by the version before, which keeps what it knows."""
    worker, job = interrupted(NEW)
    command = DjangoProcess(
        ["archive_reports"],
        output=tmp_path / "archive.log",
        environment={**environments[OLD], "DATABASE_URL": shared_database, "TEST_REDIS_URL": valkey.url},
        settings={"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")},
    )
    assert command.wait() == 0, command.output
    command.close()
    assert "Reports archived: 1" in command.output
    assert_told_in_full(archive.read(ArchivedReport.objects.get().pk), worker, job)
    assert not connection.exists(JOURNAL_KEY)
