"""Workers that are killed: what becomes of their job, of their horse, of their name and of their report."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import redis
from django.test import Client
from rq import Queue, Worker
from rq.job import Job

from graceful.core import report_json
from graceful.core.phases import JobOutcome, Outcome, Phase, Reason
from graceful.core.records import ShutdownReport
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive
from graceful.reports.journal import JOURNAL_KEY
from graceful.reports.slots import SLOTS_KEY
from graceful.worker.queue.requeue import INTERRUPTIONS_FIELD
from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess, is_alive
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("shared_database")
CLASSES = "tests.support.dying_workers."
INTERRUPT_SECONDS = 0.5
SETTINGS = {"GRACEFUL_INTERRUPT_TIMEOUT": INTERRUPT_SECONDS, "GRACEFUL_TIMEOUT": 20.0}
OTHER = "low"
"""A queue that only reapers listen to, so that they find the dead and leave the jobs alone."""


def reap_by(start_worker: StartWorker, *queues: str, **arguments: Any) -> WorkerProcess:
    """A reaper that looks after the dead and ends."""
    worker = start_worker(queues or (OTHER,), ["--burst"], wait=False, **arguments)
    assert worker.wait() == 0, worker.output
    return worker


def journal(connection: redis.Redis) -> ShutdownReport:
    """The one entry in the journal."""
    (text,) = connection.hvals(JOURNAL_KEY)
    return report_json.load(text)


def report() -> ShutdownReport:
    """The one archived report with the outcome killed."""
    (found,) = ArchivedReport.objects.filter(outcome=Outcome.KILLED)
    record = archive.read(found.pk)
    assert record is not None
    return record


def interruptions(job: Job) -> int:
    return int(job.connection.hget(job.key, INTERRUPTIONS_FIELD) or 0)


def traces(connection: redis.Redis) -> list[str]:
    """Keys that say something of a worker; a slot for storing reports, of one killed in its maintenance, expires."""
    kinds = (b"graceful:", b"rq:workers", b"rq:wip")
    return sorted({key.decode() for key in connection.keys("*") if key.startswith(kinds)} - {SLOTS_KEY})


def start_and_run(
    start_worker: StartWorker, queue: Queue, function: Any, *args: Any, **arguments: Any
) -> tuple[WorkerProcess, Job, int]:
    """A worker in the middle of a job, the job, and the pid of its horse."""
    job = queue.enqueue(function, *args)
    worker = start_worker(settings=SETTINGS, **arguments)
    horse = int(wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id), 10) or 0)
    return worker, job, horse


@pytest.mark.parametrize("name", ["KilledBeforeStart", "KilledAtFork", "SimpleKilledBeforeStart"])
@pytest.mark.parametrize("queue_names", [("default",), ("high", "default")], ids=["one queue", "two queues"])
def test_a_job_that_was_taken_and_not_started_comes_back_to_the_front(
    name: str, queue_names: tuple[str, ...], queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A job fetched and not started by a killed worker is requeued at the front, uncounted."""
    first, second = queue.enqueue(jobs.quick), queue.enqueue(jobs.quick)
    worker = start_worker(queue_names, ["--worker-class", CLASSES + name], wait=False)
    assert worker.wait() == -signal.SIGKILL
    if not name.startswith("Simple"):  # Whose supervisor may have put it back by now.
        assert queue.job_ids == [second.id], "the window was missed: the worker holds no job"
    reap_by(start_worker)
    assert queue.job_ids == [first.id, second.id]
    assert interruptions(first) == 0
    reap_by(start_worker, "default")
    books = balance(connection, [first.id, second.id])
    assert books.started == {first.id: 1, second.id: 1}
    assert len(books.at("finished")) == 2
    assert traces(connection) == []


def test_a_horse_learns_that_its_worker_is_gone(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """The horse of a killed worker is interrupted, and its job requeued once."""
    worker, job, horse = start_and_run(start_worker, queue, jobs.napping, 30)
    second = queue.enqueue(jobs.quick)
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(horse), INTERRUPT_SECONDS + 5)
    assert worker.wait() == -signal.SIGKILL
    assert int(connection.hget(jobs.RUNNING, job.id) or 0) == 0, "it was killed, and not interrupted"
    assert queue.job_ids == [job.id, second.id]
    assert interruptions(job) == 1
    reap_by(start_worker)
    assert queue.job_ids == [job.id, second.id]
    assert interruptions(job) == 1, "it was counted twice"
    balance(connection, [job.id, second.id]).assert_balanced()
    assert traces(connection) == []


def test_a_job_that_must_not_be_started_again(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """A job whose policy is to fail is failed after its worker was killed, not requeued."""
    worker, job, horse = start_and_run(start_worker, queue, worker_jobs.must_not_be_repeated, 30)
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(horse), INTERRUPT_SECONDS + 5)
    assert worker.wait() == -signal.SIGKILL
    assert queue.job_ids == []
    reap_by(start_worker)
    assert job.get_status(refresh=True) == "failed"
    assert traces(connection) == []


def test_a_reaper_in_the_middle_of_its_own_job(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """Failing a dead worker's job leaves the reaper's own execution alone."""
    worker, job, _ = start_and_run(start_worker, queue, worker_jobs.must_not_be_repeated, 60)
    own = queue.enqueue(jobs.napping, 5)
    reaper = start_worker(options=["--worker-class", CLASSES + "Hasty"])
    wait_until(lambda: connection.hget(jobs.PIDS, own.id), 10, lambda: reaper.output)
    worker.signal_session(signal.SIGKILL)
    wait_until(lambda: job.get_status(refresh=True) == "failed", 10, lambda: reaper.output)
    wait_until(lambda: own.get_status(refresh=True) == "finished", 15, lambda: reaper.output)
    assert reaper.running, reaper.output
    assert "Traceback" not in reaper.output


def test_a_reaper_leaves_a_job_alone_whose_horse_lives(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A job whose horse is alive is not requeued; a horse that swallows interruptions is killed."""
    settings = {**SETTINGS, "GRACEFUL_INTERRUPT_TIMEOUT": 4.0}
    job = queue.enqueue(jobs.stubborn, 60)
    worker = start_worker(settings=settings)
    horse = int(wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10) or 0)
    worker.signal(signal.SIGKILL)
    worker.wait()
    reap_by(start_worker)
    assert is_alive(horse), "the machine was too slow for this test"
    assert queue.job_ids == []
    wait_until(lambda: not is_alive(horse), 4.0 + 5)
    reap_by(start_worker)
    assert queue.job_ids == [job.id]
    assert interruptions(job) == 1
    assert connection.scard(jobs.OVERLAPPED) == 0
    assert traces(connection) == []


def test_worker_and_horse_killed_together(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """If worker and horse are killed together, the job is requeued and the report closed."""
    worker, job, _ = start_and_run(start_worker, queue, jobs.sleeping, 30)
    second = queue.enqueue(jobs.quick)
    worker.signal_session(signal.SIGKILL)
    worker.wait()
    reap_by(start_worker)
    assert queue.job_ids == [job.id, second.id]
    assert interruptions(job) == 1
    assert traces(connection) == []


def test_the_killed_workers_job_fails_at_last(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """A job whose workers are killed each time fails after the allowed interruptions."""
    job = queue.enqueue(jobs.sleeping, 30)
    settings = {**SETTINGS, "GRACEFUL_MAX_INTERRUPTIONS": 1}
    for _ in range(2):
        connection.delete(jobs.PIDS)
        worker = start_worker(settings=settings)
        wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10)
        worker.signal_session(signal.SIGKILL)
        worker.wait()
        reap_by(start_worker, settings=settings)
    assert job.get_status(refresh=True) == "failed"
    assert balance(connection, [job.id]).places == {job.id: ("failed:default",)}


def test_the_name_of_a_killed_worker_is_free_at_once(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker, admin_client: Client
) -> None:
    """A worker with the name of a killed one starts at once, and RQ lists one worker."""
    killed = start_worker(name="the-worker")
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert [worker.name for worker in Worker.all(connection=connection)] == ["the-worker"]
    again = start_worker(name="the-worker", wait=False)
    wait_until(lambda: [worker.pid for worker in Worker.all(connection=connection)] == [again.pid], 15, again.__repr__)
    again.signal(signal.SIGKILL)
    again.wait()
    reap_by(start_worker)
    assert Worker.all(connection=connection) == []
    page = admin_client.get("/django-rq/workers/0/").content.decode()
    assert "the-worker" not in page
    assert traces(connection) == []


def test_killed_while_draining(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """The report of a worker killed while draining names the phase and the job."""
    worker, job, _ = start_and_run(start_worker, queue, jobs.napping, 30)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: journal(connection).phase is Phase.DRAINING, 5)
    worker.signal_session(signal.SIGKILL)
    worker.wait()
    reaper = reap_by(start_worker)
    found = report()
    assert (found.worker, found.reason, found.outcome, found.exit_code) == (
        worker.name,
        Reason.KILLED,
        Outcome.KILLED,
        None,
    )
    assert found.signal == "SIGTERM"
    assert found.phase is Phase.DRAINING
    assert "last heartbeat 2" in found.notes
    assert f"closed by worker {reaper.name}" in found.notes
    ((met,),) = (found.jobs.in_flight,)
    assert (met.id, met.outcome, met.interruptions) == (job.id, JobOutcome.KILLED, 1)
    assert traces(connection) == []


def test_killed_in_a_hook(queue: Queue, connection: redis.Redis, start_worker: StartWorker) -> None:
    """The report of a worker killed in a hook names the hook."""
    worker = start_worker(
        settings={"GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.horse_note", CLASSES + "endless"]},
        environment={"TEST_NOTES": "/dev/null"},
    )
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "endless" in journal(connection).notes, 5)
    worker.signal(signal.SIGKILL)
    worker.wait()
    reap_by(start_worker)
    found = report()
    assert found.phase is Phase.HOOKS
    assert f"running the exit hook {CLASSES}endless" in found.notes
    assert [hook.name for hook in found.hooks] == ["tests.support.worker_hooks.horse_note"]
    assert traces(connection) == []


def test_killed_while_idle_or_busy(queue: Queue, start_worker: StartWorker) -> None:
    """A worker killed without a request to stop gets a report too."""
    worker, job, _ = start_and_run(start_worker, queue, jobs.sleeping, 30)
    worker.signal_session(signal.SIGKILL)
    worker.wait()
    reap_by(start_worker)
    found = report()
    assert found.requested_at is None
    assert found.phase is Phase.RUNNING
    assert [each.id for each in found.jobs.in_flight] == [job.id]


def test_killed_when_the_report_was_sealed(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A worker killed after its report was sealed keeps that report."""
    worker = start_worker(options=["--worker-class", CLASSES + "KilledSealed"])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGKILL
    assert journal(connection).sealed
    reap_by(start_worker)
    (found,) = ArchivedReport.objects.filter(worker=worker.name)
    assert (found.outcome, found.reason, found.exit_code) == (Outcome.CLEAN, Reason.SIGNAL, 0)
    assert traces(connection) == []


def test_a_namesake_of_a_living_worker_leaves_it_its_name(
    queue: Queue, connection: redis.Redis, start_worker: StartWorker
) -> None:
    """A second worker of a living worker's name fails to start and leaves the first one registered."""
    living = start_worker(name="the-worker")
    namesake = start_worker(name="the-worker", wait=False)
    assert namesake.wait() == 70, namesake.output
    assert [worker.pid for worker in Worker.all(connection=connection)] == [living.pid]
    living.signal(signal.SIGTERM)
    assert living.wait() == 0
    assert traces(connection) == []
