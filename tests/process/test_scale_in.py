"""Busy and idle hooks of real workers, and the ready ones against a stand-in of ECS' agent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.stand_ins import EcsAgent
from tests.support.waiting import let_pass, wait_until
from tests.support.worker_hooks import notes

NOTE = "tests.support.worker_hooks.busy_note"
ECS = "graceful.hooks.scale_in.ecs_task_protection"
IDLE_AFTER = 0.5

Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path) -> Start:
    """Start a worker with these hooks in both lists; of the call: ``environment`` and further settings."""

    def start_with_hooks(*hooks: object, environment: dict[str, str] | None = None, **settings: Any) -> WorkerProcess:
        options, wait = settings.pop("options", []), settings.pop("wait", True)
        lists = {"GRACEFUL_BUSY_HOOKS": hooks, "GRACEFUL_IDLE_HOOKS": hooks, "GRACEFUL_IDLE_AFTER": IDLE_AFTER}
        return start_worker(
            options=options,
            wait=wait,
            settings=lists | settings,
            environment={"TEST_NOTES": str(tmp_path / "notes"), **(environment or {})},
        )

    return start_with_hooks


@pytest.fixture
def agent() -> Iterator[EcsAgent]:
    stand_in = EcsAgent()
    with stand_in.running():
        yield stand_in


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[bool]]:
    """What the noting hook was told, in order."""
    return lambda: [note["busy"] for note in notes(tmp_path / "notes", "activity")]


def started(connection: redis.Redis, job_id: str) -> bool:
    return bool(connection.hget(jobs.PIDS, job_id))


def test_busy_before_the_job_and_idle_after_a_while(
    start: Start, connection: redis.Redis, queue: Queue, told: Callable[[], list[bool]], tmp_path: Path
) -> None:
    """An idle worker says so once; busy is told before a job starts, idle some time after the last one has ended."""
    worker = start(NOTE)
    wait_until(lambda: told() == [False], 10, lambda: worker.output)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: started(connection, job.id), 10, lambda: worker.output)
    assert told() == [False, True]
    connection.rpush("go", 1)
    wait_until(lambda: told() == [False, True, False], 10, lambda: worker.output)
    note = notes(tmp_path / "notes", "activity")[1]
    assert (note["pid"], note["main"]) == (worker.pid, False)
    assert (note["worker"], note["queues"]) == (worker.name, ["default"])
    assert 0 < note["left"] <= 5
    worker.signal()
    assert worker.wait() == 0, worker.output
    assert told() == [False, True, False]


def test_many_jobs_are_one_busy_time(start: Start, queue: Queue, told: Callable[[], list[bool]]) -> None:
    """A worker that goes from job to job calls its busy hooks once."""
    enqueued = [queue.enqueue(jobs.quick) for _ in range(10)]
    worker = start(NOTE, GRACEFUL_IDLE_AFTER=30)
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in enqueued), 20, lambda: worker.output)
    assert told() == [True]
    worker.signal()
    assert worker.wait() == 0, worker.output
    assert told() == [True, False]


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_the_end_of_a_busy_worker(
    worker_class: str, start: Start, connection: redis.Redis, queue: Queue, agent: EcsAgent
) -> None:
    """A worker that is told to stop gives its protection up, once its job is over and before it is gone."""
    job = queue.enqueue(jobs.until_released, "go")
    worker = start(ECS, environment={"ECS_AGENT_URI": agent.uri}, options=["--worker-class", worker_class])
    wait_until(lambda: started(connection, job.id), 10, lambda: worker.output)
    assert agent.told == [True]
    worker.signal()
    worker.wait_output("shutdown requested")
    assert agent.protected
    connection.rpush("go", 1)
    assert worker.wait() == 0, worker.output
    assert agent.told == [True, False]


def test_a_burst_ends_unprotected(start: Start, queue: Queue, agent: EcsAgent) -> None:
    """So does a worker that ends by itself."""
    queue.enqueue(jobs.quick)
    worker = start(ECS, environment={"ECS_AGENT_URI": agent.uri}, options=["--burst"], wait=False)
    assert worker.wait() == 0, worker.output
    assert agent.told == [True, False]


def test_an_endpoint_that_hangs(start: Start, queue: Queue, agent: EcsAgent) -> None:
    """The first job waits a second for it, and no other one; the end waits no longer than that either."""
    over = threading.Event()
    agent.before_answer = over.wait
    worker = start(ECS, environment={"ECS_AGENT_URI": agent.uri}, GRACEFUL_IDLE_AFTER=30)
    try:
        began = time.monotonic()
        enqueued = [queue.enqueue(jobs.quick) for _ in range(5)]
        finished = [job.get_status for job in enqueued]
        wait_until(lambda: all(status(refresh=True) == "finished" for status in finished), 10, lambda: worker.output)
        assert 1 <= time.monotonic() - began < 3.5
        assert len(agent.requests) == 1
        began = time.monotonic()
        worker.signal()
        assert worker.wait() == 0, worker.output
        assert time.monotonic() - began < 3
    finally:
        over.set()


def test_jobs_in_threads_of_the_workers_class(
    start: Start, connection: redis.Redis, queue: Queue, told: Callable[[], list[bool]]
) -> None:
    """A worker whose class hands its jobs on to threads is busy until they have ended."""
    job = queue.enqueue(jobs.until_released, "go")
    worker = start(NOTE, options=["--worker-class", "tests.support.horse_workers.InThreads"])
    wait_until(lambda: started(connection, job.id), 10, lambda: worker.output)
    let_pass(3 * IDLE_AFTER, "it would be idle by now, if the job counted for nothing")
    assert told() == [True]
    connection.rpush("go", 1)
    wait_until(lambda: told() == [True, False], 10, lambda: worker.output)
    worker.signal()
    assert worker.wait() == 0, worker.output


def test_a_stop_while_a_job_waits_for_its_protection(start: Start, queue: Queue, agent: EcsAgent) -> None:
    """The job is requeued at once, without having been started."""
    over = threading.Event()
    agent.before_answer = over.wait
    worker = start(ECS, environment={"ECS_AGENT_URI": agent.uri}, GRACEFUL_IDLE_AFTER=30)
    try:
        job = queue.enqueue(jobs.quick)
        wait_until(lambda: agent.requests, 10, lambda: worker.output)
        began = time.monotonic()
        worker.signal()
        worker.wait_output("was not started and has been requeued")
        assert time.monotonic() - began < 0.7
        assert worker.wait(10) == 0, worker.output
        assert queue.job_ids == [job.id], worker.output
    finally:
        over.set()


def test_a_hook_that_fails(start: Start, connection: redis.Redis, queue: Queue, told: Callable[[], list[bool]]) -> None:
    """It is logged with its traceback; the other hooks are called, the job runs, and the exit code stays 0."""
    failing = "tests.support.worker_hooks.fails_at_activity"
    job = queue.enqueue(jobs.quick)
    worker = start(failing, NOTE, GRACEFUL_IDLE_AFTER=30)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: worker.output)
    assert told() == [True]
    worker.wait_output(f"busy hook {failing} failed: RuntimeError: on purpose")
    assert "Traceback" in worker.output
    worker.signal()
    assert worker.wait() == 0, worker.output


def test_a_hook_that_never_returns(start: Start, queue: Queue, told: Callable[[], list[bool]]) -> None:
    """Jobs go on without it, and it is not called a second time while the first call goes on."""
    never = {"call": "tests.support.worker_hooks.never_returns", "timeout": 0.2}
    job = queue.enqueue(jobs.quick)
    worker = start(never)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: worker.output)
    worker.wait_output("idle hook tests.support.worker_hooks.never_returns took longer than 0.2 s")
    worker.signal()
    assert worker.wait() == 0, worker.output
    assert told() == [True]


def test_two_workers_of_one_task(start: Start, connection: redis.Redis, queue: Queue, agent: EcsAgent) -> None:
    """A worker that becomes idle, or ends, takes no protection from one beside it that is busy."""
    environment = {"ECS_AGENT_URI": agent.uri}
    first, second = start(ECS, environment=environment), start(ECS, environment=environment)
    wait_until(lambda: len(agent.told) >= 2, 10)
    enqueued = [queue.enqueue(jobs.until_released, key) for key in ("one", "two")]
    wait_until(lambda: all(started(connection, job.id) for job in enqueued), 15, lambda: first.output + second.output)
    holder = first if int(connection.hget(jobs.PIDS, enqueued[0].id) or 0) in first.children() else second
    other = second if holder is first else first
    connection.rpush("one", 1)
    wait_until(lambda: enqueued[0].get_status(refresh=True) == "finished", 10)
    holder.signal()
    assert holder.wait() == 0, holder.output
    assert agent.protected
    connection.rpush("two", 1)
    wait_until(lambda: not agent.protected, 10, lambda: other.output)
    other.signal()
    assert other.wait() == 0, other.output


def test_a_killed_worker_does_not_count(start: Start, connection: redis.Redis, queue: Queue, agent: EcsAgent) -> None:
    """The share of a worker that is killed while it is busy ends with it: the next one to be idle says so."""
    environment = {"ECS_AGENT_URI": agent.uri}
    job = queue.enqueue(jobs.until_released, "go")
    killed = start(ECS, environment=environment)
    wait_until(lambda: started(connection, job.id), 10, lambda: killed.output)
    killed.signal(signal.SIGSTOP)
    killed.kill_session()
    assert agent.protected
    connection.rpush("go", 1)
    follower = start(ECS, environment=environment)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 15, lambda: follower.output)
    wait_until(lambda: not agent.protected, 10, lambda: follower.output)
    follower.signal()
    assert follower.wait() == os.EX_OK, follower.output


def test_no_thread_without_hooks(start_worker: StartWorker) -> None:
    """A worker without such hooks neither loads nor starts anything for them."""
    worker = start_worker()
    worker.signal(signal.SIGTTIN)
    worker.wait_output("stacks of the worker")
    assert "graceful-scale-in" not in worker.output
    worker.signal()
    assert worker.wait() == 0, worker.output
