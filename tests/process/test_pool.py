"""``--workers``: signals, ends, exit codes and reports of a pool, and what becomes of workers that are killed."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from rq import Queue, Worker

from graceful.core.phases import Outcome
from graceful.models import ShutdownReport as ArchivedReport
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.pools import reports, start_pool, workers
from tests.support.processes import is_alive, pids_in_session
from tests.support.waiting import let_pass, wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
QUICK = {"GRACEFUL_TIMEOUT": 3, "GRACEFUL_HOOKS_TIMEOUT": 1, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}


@pytest.mark.parametrize("whom", ["parent", "group"])
def test_a_stop(whom: str, connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A stop of the parent or of the whole group ends all workers gracefully, and finishes their jobs."""
    pool = start_pool(start_worker, connection, 3)
    assert sorted(workers(connection)) == ["pool.1", "pool.2", "pool.3"]
    enqueued = [queue.enqueue(jobs.until_released, "go") for _ in range(2)]
    wait_until(lambda: connection.hlen(jobs.PIDS) == 2, 10, lambda: pool.output)
    if whom == "parent":
        pool.signal(signal.SIGTERM)
    else:
        os.killpg(pool.pid, signal.SIGTERM)
    pool.wait_output("3 workers are stopped")
    connection.rpush("go", 1, 1)
    assert pool.wait() == 0, pool.output
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished", "finished"]
    found = reports()
    assert sorted(each.worker for each in found) == ["pool.1", "pool.2", "pool.3"]
    assert {(each.signal, each.outcome) for each in found} == {("SIGTERM", Outcome.CLEAN)}
    assert pids_in_session(pool.pid) == []
    assert Worker.all(connection=connection) == []


def test_the_worst_code(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job that is interrupted in one worker makes 75 of it; it is back in its queue."""
    pool = start_pool(start_worker, connection, 2, **QUICK)
    job = queue.enqueue(jobs.napping, 60)
    wait_until(lambda: connection.hlen(jobs.PIDS) == 1, 10, lambda: pool.output)
    pool.signal()
    assert pool.wait() == os.EX_TEMPFAIL, pool.output
    assert queue.job_ids == [job.id]
    assert sorted(each.outcome or "" for each in reports()) == [Outcome.CLEAN, Outcome.INTERRUPTED]


def test_a_killed_worker(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Its report is closed and its job requeued at once, and another worker takes its place."""
    pool = start_pool(start_worker, connection, 2)
    job = queue.enqueue(jobs.once_long)
    wait_until(lambda: connection.hlen(jobs.PIDS) == 1, 10, lambda: pool.output)
    (holder,) = [each for each in Worker.all(connection=connection) if each.get_current_job_id() == job.id]
    horse = int(connection.hget(jobs.PIDS, job.id))  # type: ignore[arg-type]
    before = workers(connection)
    for pid in (holder.pid, horse):  # The worker first, or it would fail the job.
        os.kill(pid, signal.SIGKILL)
    pool.wait_output("was ended by SIGKILL")
    wait_until(lambda: ArchivedReport.objects.filter(worker=holder.name).exists(), 10, lambda: pool.output)
    (report,) = reports()
    assert report.outcome is Outcome.KILLED
    assert "the worker pool" in report.notes or "worker pool" in report.notes
    wait_until(lambda: job.get_status(refresh=True) == "finished", 20, lambda: pool.output)
    wait_until(lambda: len(workers(connection)) == 2, 20, lambda: pool.output)
    assert workers(connection)[holder.name] != before[holder.name]
    pool.signal()
    assert pool.wait() == 0, pool.output


def test_a_recycled_worker_is_replaced(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker that has done its number of jobs makes room for another one at once."""
    pool = start_pool(start_worker, connection, 1, "--max-jobs", "1")
    for _ in range(3):
        job = queue.enqueue(jobs.quick)
        wait_until(lambda job=job: job.get_status(refresh=True) == "finished", 20, lambda: pool.output)  # type: ignore[misc]
    pool.signal()
    assert pool.wait() == 0, pool.output
    assert pool.output.count("another one is started in 0 s") >= 2


def test_a_burst(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """It is over when all workers have done what there was."""
    done = [queue.enqueue(jobs.quick) for _ in range(5)]
    pool = start_worker(options=["--workers", "2", "--burst"], wait=False)
    assert pool.wait() == 0, pool.output
    assert {job.get_status(refresh=True) for job in done} == {"finished"}
    assert "another one" not in pool.output


def test_one_more_and_one_less(connection: redis.Redis, start_worker: StartWorker) -> None:
    """SIGTTIN adds a worker, SIGTTOU takes one; the last one stays."""
    pool = start_pool(start_worker, connection, 1)
    pool.signal(signal.SIGTTIN)
    wait_until(lambda: sorted(workers(connection)) == ["pool.1", "pool.2"], 20, lambda: pool.output)
    pool.signal(signal.SIGTTOU)
    wait_until(lambda: sorted(workers(connection)) == ["pool.1"], 20, lambda: pool.output)
    pool.signal(signal.SIGTTOU)
    pool.signal(signal.SIGUSR2)
    wait_until(lambda: pool.output.count("threads of the parent") == 1, 10, lambda: pool.output)
    assert sorted(workers(connection)) == ["pool.1"]
    pool.signal()
    assert pool.wait() == 0, pool.output


@pytest.mark.parametrize("signum", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP])
def test_signals_during_a_stop(
    signum: signal.Signals, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Nobody comes, nobody is hurried: one worker more, one less, or new code are asked for in vain."""
    pool = start_pool(start_worker, connection, 2)
    enqueued = [queue.enqueue(jobs.until_released, "go") for _ in range(2)]
    wait_until(lambda: connection.hlen(jobs.PIDS) == 2, 10, lambda: pool.output)
    pool.signal()
    pool.wait_output("2 workers are stopped")
    let_pass(1.2, "a second SIGTERM would count: within a second two are one")
    for each in (signum, signal.SIGUSR2):
        pool.signal(each)
    pool.wait_output("threads of the parent")
    let_pass(0.5, "a worker that is hurried has interrupted its job by then")
    connection.rpush("go", 1, 1)
    assert pool.wait(15) == 0, pool.output
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished", "finished"]
    assert "new code" not in pool.output
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}


if hasattr(signal, "SIGRTMIN"):  # Not on macOS.

    def test_a_worker_that_a_real_time_signal_has_killed(connection: redis.Redis, start_worker: StartWorker) -> None:
        """A signal without a name of its own is told by its number."""
        pool = start_pool(start_worker, connection, 1)
        os.kill(workers(connection)["pool.1"], signal.SIGRTMIN + 5)
        pool.wait_output(f"was ended by signal {signal.SIGRTMIN + 5}")
        pool.signal()
        assert pool.wait() == 0, pool.output


def test_the_parents_death(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """If the parent is killed, its workers end gracefully."""
    pool = start_pool(start_worker, connection, 2)
    pids = list(workers(connection).values())
    pool.signal(signal.SIGKILL)
    pool.wait()
    wait_until(lambda: not any(map(is_alive, pids)), 10, lambda: pool.output)
    assert {(each.signal, each.outcome) for each in reports()} == {("SIGTERM", Outcome.CLEAN)}
    assert len(reports()) == 2


def test_a_worker_that_cannot_be_ended(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker that is frozen is killed when the time is over, its report is closed, and the code is 70."""
    pool = start_pool(start_worker, connection, 2, **QUICK)
    frozen = workers(connection)["pool.2"]
    os.kill(frozen, signal.SIGSTOP)
    pool.signal()
    assert pool.wait(15) == os.EX_SOFTWARE, pool.output
    assert "1 workers did not end in time" in pool.output
    found = {each.worker: each.outcome for each in reports()}
    assert found == {"pool.1": Outcome.CLEAN, "pool.2": Outcome.KILLED}, pool.output


def test_wrong_numbers_and_settings(start_worker: StartWorker) -> None:
    """They are refused before anything starts."""
    for options, settings, code, message in (
        (["--workers", "0"], {}, 2, "a whole number from 1 to 999999 was expected, got: '0'"),
        (["--workers", "2"], {"GRACEFUL_TIMEOUT": -1}, 78, "GRACEFUL_TIMEOUT must be a positive number of seconds"),
        (["--workers", "2", "--probe-port", "no"], {}, 78, "--probe-port must be a whole number from 1 to 65535"),
    ):
        pool = start_worker(options=options, settings=settings, wait=False)
        assert pool.wait() == code, pool.output
        assert message in pool.output
