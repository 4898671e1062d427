"""``--workers``: signals, ends, exit codes and reports of a pool, and what becomes of workers that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from io import StringIO
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from django.core.management import call_command
from rq import Queue, Worker

from graceful.core.phases import Outcome
from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports.rows import record_of
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess, is_alive, pids_in_session
from tests.support.waiting import let_pass, wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
QUICK = {"GRACEFUL_TIMEOUT": 3, "GRACEFUL_HOOKS_TIMEOUT": 1, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}


def workers(connection: redis.Redis) -> dict[str, int]:
    """The workers that RQ lists and that take jobs, with their pids."""
    found = Worker.all(connection=connection)
    return {each.name: each.pid for each in found if each.pid and each.get_state() in ("idle", "busy")}


def start_pool(
    start_worker: StartWorker, connection: redis.Redis, number: int = 2, *options: str, **settings: object
) -> WorkerProcess:
    """A pool whose workers take jobs."""
    pool = start_worker(options=["--workers", str(number), *options], settings=settings, name="pool", wait=False)
    wait_until(lambda: len(workers(connection)) == number, 20, lambda: pool.output)
    return pool


def reports() -> list[ShutdownReport]:
    call_command("archive_reports", stdout=StringIO())  # Those that found the database busy.
    return [record_of(row) for row in ArchivedReport.objects.prefetch_related("hooks", "jobs")]


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


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An app whose code changes."""
    app = tmp_path / "changing_app"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "models.py").write_text("ANSWER = 1\n")
    (app / "jobs.py").write_text("from changing_app.models import ANSWER\n\ndef answer():\n    return ANSWER\n")
    return app


def pool_of(shop: Path, start_worker: StartWorker, connection: redis.Redis, number: int) -> WorkerProcess:
    settings = {"INSTALLED_APPS": [*django_settings.INSTALLED_APPS, "changing_app"]}
    path = os.pathsep.join([str(shop.parent), os.environ.get("PYTHONPATH", "")])
    pool = start_worker(
        options=["--workers", str(number)], settings=settings, environment={"PYTHONPATH": path}, name="pool", wait=False
    )
    wait_until(lambda: len(workers(connection)) == number, 20, lambda: pool.output)
    return pool


def test_new_code(shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """SIGHUP replaces the workers one after the other by workers with the new code; all but one take jobs meanwhile."""
    pool = pool_of(shop, start_worker, connection, 3)
    before = workers(connection)
    (shop / "models.py").write_text("ANSWER = 2\n")
    pool.signal(signal.SIGHUP)
    fewest = 3

    def all_new() -> bool:
        nonlocal fewest
        now = workers(connection)
        fewest = min(fewest, len(now))
        return len(now) == 3 and not set(now.values()) & set(before.values())

    done = []
    while not all_new():
        done.append(queue.enqueue("changing_app.jobs.answer"))
        wait_until(lambda: done[-1].get_status(refresh=True) in ("finished", "failed") or all_new(), 20, pool.__repr__)
    assert fewest >= 2, pool.output
    last = queue.enqueue("changing_app.jobs.answer")
    wait_until(lambda: last.get_status(refresh=True) == "finished", 20, lambda: pool.output)
    assert last.return_value() == 2
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in done), 20, lambda: pool.output)
    pool.signal()
    assert pool.wait() == 0, pool.output
    assert pids_in_session(pool.pid) == []
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}
    assert len(reports()) == 6


def test_new_code_that_cannot_be_loaded(
    shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """The workers go on with the code that they have."""
    pool = pool_of(shop, start_worker, connection, 2)
    before = workers(connection)
    (shop / "models.py").write_text("this is no Python\n")
    pool.signal(signal.SIGHUP)
    pool.wait_output("the new one cannot be loaded", 30)
    assert "SyntaxError" in pool.output
    assert workers(connection) == before
    (shop / "models.py").write_text("ANSWER = 3\n")
    pool.signal(signal.SIGTERM)
    assert pool.wait() == 0, pool.output


def test_a_stop_while_new_code_comes(
    shop: Path, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A stop at any instant of the replacement ends all workers, old and new, gracefully."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(4):
        pool = pool_of(shop, start_worker, connection, 2)
        pool.signal(signal.SIGHUP)
        time.sleep(rng.uniform(0, 2.5))  # The instant of the stop, chosen at random.
        pool.signal()
        assert pool.wait() == 0, pool.output
        assert pids_in_session(pool.pid) == []
    assert {each.outcome for each in reports()} == {Outcome.CLEAN}


def test_new_code_while_the_pool_is_not_complete(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """What was under way is under way after SIGHUP too: a worker that was to leave, one that is to be replaced."""
    pool = start_pool(start_worker, connection, 4)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hlen(jobs.PIDS) == 1, 10, lambda: pool.output)
    busy = next(each.name for each in Worker.all(connection=connection) if each.get_current_job_id() == job.id)
    crashed = next(name for name in workers(connection) if name != busy)
    for _ in range(2):  # The second pause is two seconds, more than the new code takes to load.
        before = workers(connection)
        os.kill(before[crashed], signal.SIGKILL)
        wait_until(lambda: workers(connection).get(crashed) not in (None, before[crashed]), 10, lambda: pool.output)  # noqa: B023
    os.kill(workers(connection)[crashed], signal.SIGKILL)
    pool.wait_output("another one is started in 4 s")
    # Those that came last leave, down to the one that is busy.
    staying = max(int(busy[5:]), int(crashed[5:]))
    for left in range(3, staying - 1, -1):
        pool.signal(signal.SIGTTOU)
        # Two at once would be one: a pending signal is not counted (signal(7)).
        pool.wait_output(f"{left} workers from now on")
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    connection.rpush("go", 1)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 20, lambda: pool.output)
    wait_until(lambda: len(workers(connection)) == staying, 20, lambda: pool.output)
    pool.signal()
    assert pool.wait() == 0, pool.output


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2])
def test_signals_while_new_code_comes(
    signum: signal.Signals, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """None of them ends or stops the parent at any instant, also while it executes itself anew."""
    pool = start_pool(start_worker, connection, 1)
    pool.signal(signal.SIGHUP)
    while "workers are replaced one after the other" not in pool.output:
        pool.signal(signum)
        let_pass(0.01, "signals come all the time")
        assert pool.running, pool.output
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


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="a platform without real-time signals")
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
