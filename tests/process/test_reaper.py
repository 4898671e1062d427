"""Those who look after the dead: how many of them do it, for whom, and what they make of nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import redis
from rq import Queue

from graceful.core import report_json
from graceful.core.phases import Outcome
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.journal import JOURNAL_KEY, UNREADABLE_KEY
from graceful.reports.slots import SLOTS_KEY
from graceful.worker.cluster.heartbeat import OVERDUE_SECONDS
from graceful.worker.cluster.process_identity import machine
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
DEAD = "was killed; its report is closed"


def kill_at_work(start_worker: StartWorker, queue: Queue) -> tuple[WorkerProcess, str]:
    """A worker that was killed together with its horse, and the id of the job that it held."""
    job = queue.enqueue(jobs.sleeping, 30)
    worker = start_worker()
    wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id), 10)
    worker.kill_session()
    return worker, job.id


def reap_by(start_worker: StartWorker) -> WorkerProcess:
    """A reaper that leaves the jobs of the queue alone."""
    worker = start_worker(("low",), ["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    return worker


def edit_registration(connection: redis.Redis, **process: object) -> str:
    """Change the process of the one registration; returns its worker id."""
    ((worker_id, text),) = connection.hgetall(WORKERS_KEY).items()
    registration = json.loads(text)
    connection.srem(MACHINE_KEY.format(registration["process"]["machine"]), worker_id)
    registration["process"] |= process
    connection.hset(WORKERS_KEY, worker_id, json.dumps(registration))
    connection.sadd(MACHINE_KEY.format(registration["process"]["machine"]), worker_id)
    return str(worker_id.decode())


def traces(connection: redis.Redis) -> list[str]:
    return sorted({key.decode() for key in connection.keys("graceful:*")} - {SLOTS_KEY})


def test_one_of_several_reapers_closes_the_report(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """Of several reapers one closes the report and requeues the job, once."""
    killed, job_id = kill_at_work(start_worker, queue)
    reapers = [start_worker(("low",), ["--burst"], wait=False) for _ in range(3)]
    for each in reapers:
        assert each.wait() == 0, each.output
    assert sum(each.output.count(DEAD) for each in reapers) == 1
    assert ArchivedReport.objects.filter(worker=killed.name).count() == 1
    assert queue.job_ids == [job_id]
    assert traces(connection) == []


def test_an_overdue_worker_of_another_machine_is_dead(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A worker on another machine whose heartbeat is overdue is reaped."""
    killed, job_id = kill_at_work(start_worker, queue)
    worker_id = edit_registration(connection, machine="elsewhere/1")
    reaper = start_worker(("low",), ["--worker-class", "tests.support.dying_workers.Hasty"])
    own = next(each for each in connection.hkeys(WORKERS_KEY) if each.decode() != worker_id)
    first = connection.zscore(HEARTBEATS_KEY, own)
    wait_until(lambda: connection.zscore(HEARTBEATS_KEY, own) >= first + 2, 10)
    assert connection.hexists(WORKERS_KEY, worker_id), "it may live, nobody here can know"
    assert queue.job_ids == []
    connection.zadd(HEARTBEATS_KEY, {worker_id: int(connection.time()[0]) - OVERDUE_SECONDS - 1})
    wait_until(lambda: not connection.hexists(WORKERS_KEY, worker_id), 10, lambda: reaper.output)
    found = ArchivedReport.objects.filter(worker=killed.name)
    assert [report.outcome for report in found] == [Outcome.KILLED]
    assert queue.job_ids == [job_id]
    reaper.signal(signal.SIGTERM)
    assert reaper.wait() == 0
    assert traces(connection) == []


def test_an_overdue_worker_of_this_machine_that_lives_is_left_alone(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A living worker on this machine is left alone, however overdue its heartbeat."""
    job = queue.enqueue(jobs.until_released, "release")
    worker = start_worker()
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10)
    (worker_id,) = connection.hkeys(WORKERS_KEY)
    connection.zadd(HEARTBEATS_KEY, {worker_id: 1})
    reap_by(start_worker)
    assert connection.hexists(WORKERS_KEY, worker_id)
    connection.rpush("release", 1)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert balance(connection, [job.id]).started == {job.id: 1}


def test_a_pid_that_another_process_has_got_meanwhile(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A dead worker whose pid was reused is reaped."""
    killed, job_id = kill_at_work(start_worker, queue)
    edit_registration(connection, pid=os.getpid())
    reap_by(start_worker)
    assert ArchivedReport.objects.filter(worker=killed.name, outcome=Outcome.KILLED).exists()
    assert queue.job_ids == [job_id]


def test_a_reaper_that_was_killed(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """A report that a killed reaper left unfinished is closed by the next one."""
    killed, job_id = kill_at_work(start_worker, queue)
    (worker_id,) = (key.decode() for key in connection.hkeys(WORKERS_KEY))
    connection.set(f"graceful:autopsy:{worker_id}", "another")
    reap_by(start_worker)
    assert queue.job_ids == [], "there were two of them at it"
    connection.delete(f"graceful:autopsy:{worker_id}")  # As it does by itself after LOCK_SECONDS.
    reap_by(start_worker)
    assert queue.job_ids == [job_id]
    assert ArchivedReport.objects.filter(worker=killed.name).count() == 1


def test_a_report_that_its_worker_had_sealed(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """A sealed report of a dead worker stays as it is, and its entries are removed."""
    killed, _ = kill_at_work(start_worker, queue)
    ((worker_id, text),) = connection.hgetall(JOURNAL_KEY).items()
    report = report_json.load(text)
    sealed = report._replace(outcome=Outcome.INTERRUPTED, exit_code=75, ended_at=report.started_at)
    connection.hset(JOURNAL_KEY, worker_id, report_json.dump(sealed))
    reap_by(start_worker)
    (archived,) = ArchivedReport.objects.filter(worker=killed.name)
    assert (archived.outcome, archived.exit_code) == (Outcome.INTERRUPTED, 75)
    assert traces(connection) == []


HOSTILE = [
    "",
    "nonsense",
    "[]",
    "null",
    "{}",
    '{"life": 1, "worker": null, "queues": 3, "process": [], "oom_kills": null}',
    "[" * 10_000,
    "x" * 1_000_000,
]


def test_registrations_that_are_none(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """Invalid registrations are set aside, and the worker starts."""
    here = MACHINE_KEY.format(machine())
    for number, text in enumerate(HOSTILE):
        connection.hset(WORKERS_KEY, f"worker-id-{number}", text)
        connection.sadd(here, f"worker-id-{number}")
        connection.zadd(HEARTBEATS_KEY, {f"worker-id-{number}": 1})
    connection.sadd(here, b"\xff\xfe", "unknown")
    connection.zadd(HEARTBEATS_KEY, {b"\xff\xfe": 1, "unknown": 1})
    job = queue.enqueue(jobs.quick)
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status(refresh=True) == "finished"
    assert connection.scard(here) == 0
    assert connection.zcard(HEARTBEATS_KEY) == 0


@pytest.mark.parametrize(
    "held",
    [
        {"job": "no such job", "queue": "rq:queue:default"},
        {"job": "no such job", "queue": "nonsense", "horse": "1", "horse_started": "1"},
        {"job": "x", "queue": "rq:queue:default", "horse": "nonsense"},
        {"queue": "rq:queue:default"},
        {"job": b"\xff"},
        "no hash at all",
    ],
    ids=["gone", "no queue", "no pid", "no job", "no text", "no hash"],
)
@pytest.mark.parametrize("journal", ["nonsense", '{"version": 99}', None], ids=["no json", "newer", "none"])
def test_what_is_said_of_a_dead_worker_is_nonsense(
    held: dict[str, str] | str, journal: str | None, queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """Invalid entries of a dead worker do not keep others from starting."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    process = {"machine": machine(), "pid": int(dead.stdout), "started": "1"}
    registration = {"life": "worker-id", "worker": "dead", "queues": ["default"], "process": process, "oom_kills": None}
    connection.hset(WORKERS_KEY, "worker-id", json.dumps(registration))
    connection.sadd(MACHINE_KEY.format(machine()), "worker-id")
    connection.zadd(HEARTBEATS_KEY, {"worker-id": 1})
    if isinstance(held, str):
        connection.set(HELD_KEY.format("worker-id"), held)
    else:
        connection.hset(HELD_KEY.format("worker-id"), mapping=held)
        if "job" in held:
            connection.hset(HOLDERS_KEY, held["job"], "worker-id")
    if journal is not None:
        connection.hset(JOURNAL_KEY, "worker-id", journal)
    job = queue.enqueue(jobs.quick)
    worker = start_worker(options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert job.get_status(refresh=True) == "finished"
    connection.delete(UNREADABLE_KEY)
    assert ArchivedReport.objects.filter(worker="dead", outcome=Outcome.KILLED).count() == 1, worker.output
    assert traces(connection) == []
