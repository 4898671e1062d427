"""Outside of ``work()`` a graceful class is the stock class: each of RQ's methods may be called by itself."""

from __future__ import annotations

import inspect
import os
import signal
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import JobStatus
from rq.worker import SimpleWorker, SpawnWorker, Worker

from graceful.worker.classes import GracefulSimpleWorker, GracefulSpawnWorker, GracefulWorker
from tests.support import jobs

STOCK = {GracefulWorker: Worker, GracefulSimpleWorker: SimpleWorker, GracefulSpawnWorker: SpawnWorker}
Graceful = type[GracefulWorker] | type[GracefulSimpleWorker] | type[GracefulSpawnWorker]


@pytest.fixture(params=STOCK, ids=lambda cls: cls.__name__)
def graceful_class(request: pytest.FixtureRequest) -> Graceful:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def worker(graceful_class: Graceful, connection: redis.Redis, queue: Queue) -> Any:
    return graceful_class([queue], connection=connection)


@pytest.mark.parametrize("worker_class", [GracefulWorker, GracefulSimpleWorker])
def test_execute_job_finishes_the_job(worker_class: Graceful, connection: redis.Redis, queue: Queue) -> None:
    """A job runs through execute_job() without work(), in a horse and without one."""
    worker: Any = worker_class([queue], connection=connection)
    job = queue.enqueue(jobs.quick)
    worker.register_birth()
    taken, of = worker.dequeue_job_and_maintain_ttl(None)
    assert taken.id == job.id
    worker.execute_job(taken, of)
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    worker.register_death()


def test_an_execution_is_prepared_and_kept_alive(worker: Any, queue: Queue) -> None:
    """prepare_execution(), prepare_job_execution(), heartbeat() and maintain_heartbeats() need no work()."""
    job = queue.enqueue(jobs.quick)
    worker.register_birth()
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    worker.heartbeat()
    arguments = (job, execution) if "execution" in inspect.signature(Worker.maintain_heartbeats).parameters else (job,)
    worker.maintain_heartbeats(*arguments)
    assert job.get_status(refresh=True) == JobStatus.STARTED
    assert worker.get_current_job_id() == job.id


def test_a_worker_is_born_and_torn_down(worker: Any) -> None:
    """bootstrap(), maintenance, the check for a suspension, and teardown() need no work()."""
    worker.bootstrap()
    worker.run_maintenance_tasks()
    worker.check_for_suspension(burst=True)
    worker.teardown()
    assert worker.report is None


def test_a_worker_without_a_horse_kills_nothing(
    connection: redis.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill_horse() without a horse kills nobody, also outside of work(): RQ's kills the caller's process group."""
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, signum: killed.append(group))
    GracefulWorker([queue], connection=connection).kill_horse()
    assert not killed


def test_a_horse_is_waited_for(connection: redis.Redis, queue: Queue) -> None:
    """wait_for_horse() by itself returns the horse's pid and status."""
    worker = GracefulWorker([queue], connection=connection)
    pid = os.fork()
    if not pid:
        os.setpgrp()
        signal.pause()
        os._exit(0)
    worker._horse_pid = pid
    os.kill(pid, signal.SIGKILL)
    found, status, _ = worker.wait_for_horse()
    assert (found, status) == (pid, signal.SIGKILL)


def test_what_all_returns_is_stock(worker: Any, graceful_class: Graceful, connection: redis.Redis) -> None:
    """A worker found by its key stands for another process: a heartbeat through it is RQ's."""
    worker.register_birth()
    found: Any = graceful_class.find_by_key(worker.key, connection=connection)
    found.heartbeat()
    found.register_death()
    assert not connection.exists(f"graceful:{worker.name}")


@pytest.mark.parametrize("worker_class", [GracefulWorker, GracefulSimpleWorker])
@pytest.mark.django_db(transaction=True)
def test_after_work_the_worker_is_stock_again(worker_class: Graceful, connection: redis.Redis, queue: Queue) -> None:
    """The methods can be called after work() has ended, and work() a second time."""
    worker: Any = worker_class([queue], connection=connection)
    job = queue.enqueue(jobs.quick)
    assert worker.work(burst=True)
    worker.heartbeat()
    worker.prepare_execution(job)
    again = queue.enqueue(jobs.quick)
    assert worker.work(burst=True)
    assert again.get_status(refresh=True) == JobStatus.FINISHED


@pytest.mark.parametrize("worker_class", [GracefulWorker, GracefulSimpleWorker])
@pytest.mark.django_db(transaction=True)
def test_an_execute_job_that_is_not_ours_is_left_alone(
    worker_class: Graceful, connection: redis.Redis, queue: Queue
) -> None:
    """What a class or a test puts in the place of execute_job decides about the job, which stays where RQ has it."""
    worker: Any = worker_class([queue], connection=connection)
    job = queue.enqueue(jobs.quick)
    worker.execute_job = lambda job, queue: None
    assert worker.work(burst=True)
    assert connection.lrange(queue.intermediate_queue_key, 0, -1) == [job.id.encode()]
    assert not connection.exists("graceful:holders")
    assert worker.report.exit_code == 0
