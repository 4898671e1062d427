"""The tests' own tools, tried on django-rq's stock worker."""

from __future__ import annotations

import signal

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.job_accounting import balance
from tests.support.processes import Leftovers, is_alive
from tests.support.server import Server
from tests.support.waiting import NeverHappened, wait_until


def test_a_stock_worker_is_started_runs_a_job_and_is_stopped(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """The test tools start a stock worker, run a job and stop it."""
    worker = start_worker(command="rqworker")
    job = queue.enqueue(jobs.quick, 7)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert job.return_value() == 7
    books = balance(connection, [job.id])
    assert books.places == {job.id: ("finished:default",)}
    assert books.started == {job.id: 1}
    books.assert_balanced()


def test_the_worker_writes_to_the_database_of_the_test(
    shared_database: str, queue: Queue, start_worker: StartWorker, django_user_model: type
) -> None:
    """Worker processes use the database of the test."""
    worker = start_worker(command="rqworker", options=["--burst"], wait=False)
    queue.enqueue(jobs.write_model, "ada")
    wait_until(lambda: django_user_model.objects.filter(username="ada").exists(), 15, lambda: worker.output)
    worker.wait()


def test_processes_left_behind_are_found_and_ended(queue: Queue, start_worker: StartWorker) -> None:
    """Processes left behind are found and killed."""
    worker = start_worker(command="rqworker")
    job = queue.enqueue(jobs.sleeping, 60)
    wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id), 10)
    horse = int(queue.connection.hget(jobs.PIDS, job.id) or 0)
    assert worker.children() == [horse]
    worker.signal(signal.SIGKILL)
    assert worker.wait(5) == -signal.SIGKILL
    with pytest.raises(Leftovers, match=str(horse)):
        worker.close()
    assert not is_alive(horse)


def test_a_job_in_nobodys_hands_is_found(queue: Queue, connection: redis.Redis) -> None:
    """The accounting finds a job that is in no queue and no registry."""
    popped, moved, kept = (queue.enqueue(jobs.quick) for _ in range(3))
    connection.lrem(queue.key, 1, popped.id)
    connection.lrem(queue.key, 1, moved.id)
    connection.rpush(f"{queue.key}:intermediate", moved.id)
    books = balance(connection, [popped.id, moved.id, kept.id])
    assert (books.lost, books.stuck, books.at("queue")) == ([popped.id], [moved.id], [kept.id])
    with pytest.raises(AssertionError, match="lost"):
        books.assert_balanced()


def test_a_server_is_paused_killed_and_started_again(own_valkey: Server) -> None:
    """The test server can be paused, killed and restarted."""
    client = own_valkey.client(socket_timeout=0.2, retry=None)
    client.set("a", 1)
    own_valkey.pause()
    with pytest.raises(redis.exceptions.TimeoutError):
        client.get("a")
    own_valkey.resume()
    assert wait_until(lambda: client.get("a")) == b"1"
    port = own_valkey.port
    own_valkey.kill()
    assert not own_valkey.running
    own_valkey.start()
    assert own_valkey.port == port
    assert wait_until(lambda: client.ping())
    assert client.get("a") is None


def test_waiting_ends_with_an_error_that_says_for_what() -> None:
    """A wait that times out says what it waited for."""
    with pytest.raises(NeverHappened, match=r"0\.02 s: the moon .*last: 0"):
        wait_until(lambda: 0, 0.02, "the moon")
