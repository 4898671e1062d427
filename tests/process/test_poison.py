"""Jobs that cost their workers again and again: they fail with the evidence, and can be requeued."""

from __future__ import annotations

import os
import signal
import socket

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from rq import Queue
from rq.job import Job

from graceful.admin.last_report import unclean_counter
from graceful.core.attempts import AttemptEnd
from graceful.memory import MEGABYTE
from graceful.worker.cluster.poison import count_poison, poison_jobs
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.conftest import StartWorker
from tests.support import jobs, memory_jobs, worker_jobs
from tests.support.processes import WorkerProcess, is_alive
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
ONCE = {"GRACEFUL_MAX_INTERRUPTIONS": 1}
SHORT = {"GRACEFUL_TIMEOUT": 2.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}
SIMPLE = ("--worker-class", "rq.SimpleWorker")


def at_work(connection: redis.Redis, job: Job, worker: WorkerProcess, times: int) -> None:
    """Wait until the job has begun for so many times."""
    wait_until(lambda: connection.hget(jobs.STARTED, job.id) == str(times).encode(), 20, lambda: worker.output)


def error_of(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


def test_a_job_that_kills_its_workers(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """It fails once its worker was killed too often, names each worker and host, and can be requeued from the admin."""
    user = User.objects.create_user("somebody", is_staff=True)
    codenames = ["view_shutdownreport", "requeue_poison"]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    job = queue.enqueue(jobs.napping, 30)
    workers = []
    for times in (1, 2):
        workers.append(start_worker(settings=ONCE, name=f"dying-{times}"))
        at_work(connection, job, workers[-1], times)
        workers[-1].kill_session()
    last = start_worker(settings=ONCE)
    wait_until(lambda: job.get_status(refresh=True) == "failed", 20, lambda: last.output)
    error = error_of(job)
    assert error.startswith("PoisonJob: interrupted 2 times; its worker was killed in 2 of the last 2\n1. ")
    for number, worker in enumerate(workers, 1):
        assert f"worker {worker.name} on {socket.gethostname()}: its worker was killed" in error.splitlines()[number]
    (poison,) = poison_jobs(connection)
    assert (poison.job_id, poison.function) == (job.id, "tests.support.jobs.napping")
    assert [each.ended for each in poison.evidence] == [AttemptEnd.WORKER_DIED] * 2

    client = Client()
    client.force_login(user)
    response = client.post("/admin/graceful/poisonjob/requeue/", {"job": job.id})
    assert response.status_code == 302
    at_work(connection, job, last, 3)
    assert connection.hget(job.key, INTERRUPTIONS_FIELD) is None
    assert (count_poison(connection), poison_jobs(connection)) == (0, [])
    last.kill_session()
    # Counted from 0: one more death is forgiven.
    again = start_worker(settings=ONCE)
    at_work(connection, job, again, 4)
    assert connection.hget(job.key, INTERRUPTIONS_FIELD) == b"1"


def test_a_horse_that_outlives_its_worker_says_more(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Where the worker alone is killed, its horse requeues the job, with its peak memory and where the job stood."""
    job = queue.enqueue(memory_jobs.keeps, 100)
    worker = start_worker(settings={"GRACEFUL_MAX_INTERRUPTIONS": 0}, name="dying")
    at_work(connection, job, worker, 1)
    wait_until(lambda: _size(int(connection.hget(jobs.PIDS, job.id) or 0)) > 100 * MEGABYTE)
    worker.signal(signal.SIGKILL)
    worker.wait()
    last = start_worker(settings={"GRACEFUL_MAX_INTERRUPTIONS": 0})
    wait_until(lambda: job.get_status(refresh=True) == "failed", 20, lambda: last.output)
    (poison,) = poison_jobs(connection)
    (attempt,) = poison.evidence
    assert (attempt.ended, attempt.worker, attempt.hostname) == (
        AttemptEnd.WORKER_DIED,
        "dying",
        socket.gethostname(),
    )
    assert attempt.peak_bytes is not None
    assert 100 * MEGABYTE < attempt.peak_bytes < 400 * MEGABYTE
    assert "in keeps" in attempt.stack
    assert "at memory_jobs.py:" in error_of(job)


def _size(pid: int) -> int:
    from graceful import memory

    return memory.resident(pid) or 0


def test_a_job_that_shutdowns_have_killed(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """No worker was killed, so the error is the usual one; it names signal, peak memory and place of each attempt."""
    job = queue.enqueue(jobs.stubborn, 30)
    settings = {**SHORT, "GRACEFUL_MAX_INTERRUPTIONS": 0}
    worker = start_worker(settings=settings)
    at_work(connection, job, worker, 1)
    worker.signal()
    assert worker.wait() == os.EX_TEMPFAIL
    assert job.get_status(refresh=True) == "failed"
    error = error_of(job)
    assert error.startswith("TooManyInterruptions: interrupted by 1 shutdowns, the last one included\n1. ")
    assert ": killed at the hard limit of a shutdown, by SIGKILL, peak memory " in error
    assert "at jobs.py:" in error
    assert "in stubborn" in error
    assert [each.job_id for each in poison_jobs(connection)] == [job.id]


def test_a_job_that_kills_a_simple_worker(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A crash in C code takes a simple worker with it; the supervisor notes that, and the next worker fails the job."""
    job = queue.enqueue(worker_jobs.crashes)
    settings = {"GRACEFUL_MAX_INTERRUPTIONS": 1}
    for times in (1, 2):
        worker = start_worker(options=SIMPLE, settings=settings, wait=False)
        wait_until(lambda worker=worker: not worker.running, 20)  # type: ignore[misc]
        assert worker.exit_code == -signal.SIGSEGV
        pid = worker.pid
        wait_until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        assert connection.hget(jobs.STARTED, job.id) == str(times).encode()
        worker.close()
    last = start_worker(options=SIMPLE, settings=settings)
    wait_until(lambda: job.get_status(refresh=True) == "failed", 20, lambda: last.output)
    assert error_of(job).startswith("PoisonJob: interrupted 2 times; its worker was killed in 2 of the last 2\n")
    assert connection.hget(jobs.STARTED, job.id) == b"2"


@pytest.fixture(autouse=True)
def no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unclean_counter, "refresh", lambda: None)
