"""Each reason for which a worker ends, each exit code; and that hooks and report come with all of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue
from rq.command import send_shutdown_command

from graceful.core import report_json
from graceful.core.phases import JobOutcome, Outcome, Phase, Reason
from graceful.core.records import ShutdownReport
from graceful.reports.builder import STOPPED_BY_POOL
from graceful.reports.journal import JOURNAL_KEY
from graceful.reports.rows import record_of
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import DjangoProcess, WorkerProcess
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until
from tests.support.worker_hooks import notes

GRACEFUL = {"command": "runworker_graceful"}
RQWORKER = {"command": "rqworker", "options": ("--worker-class", "graceful.worker.GracefulWorker")}
HOOKS = ["tests.support.worker_hooks.exit_note"]
SHORT = {"GRACEFUL_TIMEOUT": 2.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 0.5}

both_commands = pytest.mark.parametrize("command", [GRACEFUL, RQWORKER], ids=["runworker_graceful", "rqworker"])


class Started:
    """Starts workers whose one exit hook writes down what it saw.

    Args:
        start_worker: the fixture.
        notes_path: where the hook writes to.
    """

    def __init__(self, start_worker: StartWorker, notes_path: Path) -> None:
        self._start_worker = start_worker
        self.notes_path = notes_path

    def __call__(self, command: dict[str, Any], *options: str, **arguments: Any) -> WorkerProcess:
        settings = {"GRACEFUL_EXIT_HOOKS": HOOKS, **arguments.pop("settings", {})}
        return self._start_worker(
            command=command["command"],
            options=(*command.get("options", ()), *options),
            settings=settings,
            environment={"TEST_NOTES": str(self.notes_path)},
            **arguments,
        )

    def assert_hook_ran(self, worker: WorkerProcess, reason: Reason) -> dict[str, Any]:
        """The hook ran once, in the worker's main thread, with nobody else of it alive."""
        (note,) = notes(self.notes_path, "exit")
        assert note["pid"] == worker.pid
        assert note["main"]
        assert note["others"] == []
        assert note["reason"] == reason
        assert note["worker"] == worker.name
        return note


@pytest.fixture
def started(start_worker: StartWorker, tmp_path: Path) -> Started:
    return Started(start_worker, tmp_path / "notes")


def assert_sealed(report: ShutdownReport, reason: Reason, outcome: Outcome, code: int, notes: str = "") -> None:
    """What has to be true of every complete report."""
    assert report.phase is Phase.SEALED
    assert (report.reason, report.outcome, report.exit_code) == (reason, outcome, code)
    assert [(hook.name, hook.outcome, hook.detail) for hook in report.hooks] == [(HOOKS[0], "ok", "noted")]
    moments = [report.started_at, report.requested_at, report.drained_at, report.ended_at]
    assert None not in moments
    assert moments == sorted(moments)  # type: ignore[type-var]
    assert report.seconds.total is not None
    assert notes in report.notes
    assert bool(notes) == bool(report.notes)


@both_commands
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal(
    command: dict[str, Any], signum: signal.Signals, connection: redis.Redis, queue: Queue, started: Started
) -> None:
    """After SIGTERM hooks run, and the report is clean with exit code 0."""
    worker = started(command)
    job = queue.enqueue(jobs.quick, 7)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    worker.wait_state("idle")
    worker.signal(signum)
    assert worker.wait(5) == 0
    report = report_of(connection, worker)
    assert_sealed(report, Reason.SIGNAL, Outcome.CLEAN, 0)
    assert report.signal == signum.name
    assert (report.jobs.finished, report.jobs.failed, report.jobs.in_flight) == (1, 0, ())
    assert (report.worker, report.pid, report.queues) == (worker.name, worker.pid, ("default",))
    assert report.worker_class == "graceful.worker.classes.GracefulWorker"
    note = started.assert_hook_ran(worker, Reason.SIGNAL)
    assert note["signal"] == signum.name
    assert note["queues"] == ["default"]
    assert job.return_value() == 7


@both_commands
def test_burst(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """At the end of a burst hooks run."""
    good, bad = queue.enqueue(jobs.quick), queue.enqueue(jobs.failing)
    worker = started(command, "--burst", wait=False)
    assert worker.wait() == 0
    assert [job.get_status(refresh=True) for job in (good, bad)] == ["finished", "failed"]
    report = report_of(connection, worker)
    assert_sealed(report, Reason.BURST, Outcome.CLEAN, 0)
    assert report.signal is None
    assert (report.jobs.finished, report.jobs.failed) == (1, 1)
    started.assert_hook_ran(worker, Reason.BURST)


@both_commands
def test_max_jobs(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """After the maximum of jobs hooks run, and no further job is taken."""
    enqueued = [queue.enqueue(jobs.quick) for _ in range(3)]
    worker = started(command, "--max-jobs", "2", wait=False)
    assert worker.wait() == 0
    assert [job.get_status(refresh=True) for job in enqueued] == ["finished", "finished", "queued"]
    assert_sealed(report_of(connection, worker), Reason.MAX_JOBS, Outcome.CLEAN, 0)
    started.assert_hook_ran(worker, Reason.MAX_JOBS)


@both_commands
def test_idle(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """After the maximum idle time hooks run."""
    job = queue.enqueue(jobs.quick)
    worker = started(command, "--max-idle-time", "1", wait=False)
    assert worker.wait() == 0
    assert job.get_status(refresh=True) == "finished"
    assert_sealed(report_of(connection, worker), Reason.IDLE, Outcome.CLEAN, 0)
    started.assert_hook_ran(worker, Reason.IDLE)


def test_ctrl_c_says_that_a_second_is_faster(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """The first SIGINT with a job in flight says what a second does; it does so. A SIGTERM does not mention it."""
    told = "Ctrl+C again interrupts the job at once"
    worker = started(GRACEFUL)
    job = queue.enqueue(jobs.napping, 30)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.signal(signal.SIGINT)
    worker.wait_output(told)
    let_pass(1.1, "two signals within a second are one")
    worker.signal(signal.SIGINT)
    assert worker.wait(10) == os.EX_TEMPFAIL
    connection.flushall()
    worker = started(GRACEFUL, settings=SHORT)
    job = queue.enqueue(jobs.napping, 30)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.signal()
    assert worker.wait(10) == os.EX_TEMPFAIL
    assert told not in worker.output


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_of_a_pool_says_who_stopped_it(
    signum: signal.Signals, connection: redis.Redis, queue: Queue, valkey: Server, tmp_path: Path
) -> None:
    """A worker pool sends SIGINT to its workers whichever signal it gets: their reports and logs say so."""
    pool = DjangoProcess(
        ["rqworker-pool", "default", "--worker-class", "graceful.worker.GracefulWorker"],
        output=tmp_path / "pool.log",
        environment={"DATABASE_URL": "sqlite://", "TEST_REDIS_URL": valkey.url},
        settings={**SHORT, "GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")},
    )
    try:
        job = queue.enqueue(jobs.napping, 30)
        wait_until(lambda: connection.hget(jobs.STARTED, job.id), 20, lambda: pool.output)
        pool.signal(signum)
        pool.wait_output("shutdown requested (SIGINT from its pool)")
        pool.wait()
    finally:
        pool.close()
    assert "Ctrl+C again" not in pool.output
    (report,) = [report_json.load(text) for text in connection.hvals(JOURNAL_KEY)]
    assert (report.reason, report.signal, report.notes) == (Reason.SIGNAL, "SIGINT", STOPPED_BY_POOL)


@both_commands
def test_shutdown_command(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """After RQ's shutdown command hooks run."""
    worker = started(command)
    job = queue.enqueue(jobs.until_released, "go")
    worker.wait_state("busy")
    send_shutdown_command(connection, worker.name)
    wait_until(lambda: report_of(connection, worker).phase is Phase.DRAINING)
    connection.rpush("go", 1)
    assert worker.wait(5) == 0
    report = report_of(connection, worker)
    assert_sealed(report, Reason.COMMAND, Outcome.CLEAN, 0)
    assert report.signal is None
    ((job_id, outcome, seconds),) = [(each.id, each.outcome, each.seconds) for each in report.jobs.in_flight]
    assert (job_id, outcome) == (job.id, JobOutcome.FINISHED)
    assert seconds is not None
    assert job.get_status(refresh=True) == "finished"
    assert started.assert_hook_ran(worker, Reason.COMMAND)["jobs"] == [[job.id, "finished"]]


@both_commands
def test_redis_lost(
    command: dict[str, Any],
    shared_database: str,
    own_valkey: Server,
    started: Started,
    tmp_path: Path,
) -> None:
    """After the loss of Redis hooks run, with a report and exit code 69."""
    from graceful.models import ShutdownReport as Row

    worker = started(command, settings={"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0})
    queue = Queue(connection=own_valkey.client())
    job = queue.enqueue(jobs.sleeping, 0.5)
    wait_until(lambda: queue.connection.hget(jobs.PIDS, job.id))
    own_valkey.kill()
    assert worker.wait(30) == os.EX_UNAVAILABLE
    report = record_of(Row.objects.get(worker=worker.name))
    assert_sealed(report, Reason.REDIS_LOST, Outcome.CRASHED, 69, "ended by redis.exceptions.ConnectionError: ")
    assert [each.id for each in report.jobs.in_flight] == [job.id]
    started.assert_hook_ran(worker, Reason.REDIS_LOST)
    assert not (tmp_path / "spool").exists()


def test_no_redis_at_the_start(own_valkey: Server, started: Started) -> None:
    """An unreachable Redis at the start is exit code 69."""
    own_valkey.stop()
    worker = started(GRACEFUL, wait=False)
    assert worker.wait(30) == os.EX_UNAVAILABLE
    assert "Redis cannot be reached" in worker.output
    assert "Traceback" not in worker.output


@both_commands
def test_error(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """After a crash hooks run, with exit code 70 and a report that names the error."""
    job = queue.enqueue(jobs.quick)
    worker = started(command, "--job-class", "tests.support.worker_hooks.BrokenJob", wait=False)
    assert worker.wait() == os.EX_SOFTWARE
    assert "a job class that is broken" in worker.output
    report = report_of(connection, worker)
    assert_sealed(report, Reason.ERROR, Outcome.CRASHED, 70, "a job class that is broken")
    started.assert_hook_ran(worker, Reason.ERROR)
    # As with RQ's own worker; its maintenance will fail a job that nobody can read.
    assert connection.lrange(queue.intermediate_queue_key, 0, -1) == [job.id.encode()]


def test_an_error_between_two_jobs_of_a_burst(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """An error between two jobs of a burst is a crash."""
    job = queue.enqueue(jobs.quick)
    worker_class = "tests.support.worker_hooks.BrokenLoop"
    worker = started(GRACEFUL, "--burst", "--worker-class", worker_class, wait=False)
    assert worker.wait() == os.EX_SOFTWARE
    assert "a worker class that is broken" in worker.output
    report = report_of(connection, worker)
    assert (report.reason, report.outcome, report.exit_code) == (Reason.ERROR, Outcome.CRASHED, 70)
    assert queue.job_ids == [job.id]


def test_a_job_that_nobody_can_read_ends_one_worker_only(
    connection: redis.Redis, queue: Queue, started: Started
) -> None:
    """An unreadable job ends one worker; the next one runs the other jobs."""
    bad, good = queue.enqueue(jobs.quick), queue.enqueue(jobs.quick)
    connection.hset(bad.key, "created_at", "long ago")
    assert started(GRACEFUL, "--burst", wait=False).wait() == os.EX_SOFTWARE
    worker = started(GRACEFUL, "--burst", wait=False)
    assert worker.wait() == 0, worker.output
    assert "maintenance failed" in worker.output
    assert good.get_status(refresh=True) == "finished"


@both_commands
def test_a_hook_that_fails_and_one_that_hangs(
    command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started
) -> None:
    """A failed hook and one that hangs are reported, the others run, and the exit code is 70."""
    hooks = [
        "tests.support.worker_hooks.failing",
        {"call": "tests.support.worker_hooks.hanging", "timeout": 0.2},
        *HOOKS,
    ]
    worker = started(command, settings={"GRACEFUL_EXIT_HOOKS": hooks, **SHORT})
    worker.signal()
    assert worker.wait(5) == os.EX_SOFTWARE
    report = report_of(connection, worker)
    assert (report.outcome, report.exit_code) == (Outcome.HOOKS_FAILED, 70)
    assert [hook.outcome for hook in report.hooks] == ["failed", "timed_out", "ok"]
    assert "on purpose" in report.hooks[0].error
    assert "time.sleep(0.05)" in report.hooks[1].traceback
    started.assert_hook_ran(worker, Reason.SIGNAL)


@both_commands
def test_interrupted_job(command: dict[str, Any], connection: redis.Redis, queue: Queue, started: Started) -> None:
    """A shutdown that interrupted a job has exit code 75."""
    worker = started(command, settings=SHORT)
    job = queue.enqueue(jobs.napping, 30)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.signal()
    assert worker.wait(5) == os.EX_TEMPFAIL
    report = report_of(connection, worker)
    assert_sealed(report, Reason.SIGNAL, Outcome.INTERRUPTED, 75)
    (in_flight,) = report.jobs.in_flight
    assert (in_flight.id, in_flight.outcome, in_flight.interruptions) == (job.id, JobOutcome.INTERRUPTED, 1)
    assert (in_flight.function, in_flight.queue) == ("tests.support.jobs.napping", "default")
    assert "in napping" in in_flight.stack
    assert started.assert_hook_ran(worker, Reason.SIGNAL)["jobs"] == [[job.id, "interrupted"]]


@pytest.mark.parametrize("options", [(), ("--worker-class", "graceful.worker.GracefulSimpleWorker")])
def test_the_journal_names_the_job_that_is_drained(
    options: tuple[str, ...], connection: redis.Redis, queue: Queue, started: Started
) -> None:
    """What the signal writes ahead says which function the job in flight runs."""
    worker = started(GRACEFUL, *options)
    job = queue.enqueue(jobs.napping, 1)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.signal()
    wait_until(lambda: report_of(connection, worker).phase is Phase.DRAINING)
    (in_flight,) = report_of(connection, worker).jobs.in_flight
    assert (in_flight.id, in_flight.function) == (job.id, "tests.support.jobs.napping")
    assert worker.wait(10) == os.EX_OK


def test_the_tables_are_missing(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """A worker without its tables names ``migrate`` once no job waits, and at its end; the report waits."""
    queue.enqueue(jobs.quick)
    worker = started(GRACEFUL, "--burst", wait=False)
    assert worker.wait() == os.EX_OK
    told = "tables of graceful are missing or out of date, run: manage.py migrate"
    start, end = worker.output.split("tests.support.jobs.quick", 1)
    assert (start.count(told), end.count(told)) == (0, 2)
    assert report_of(connection, worker).outcome is Outcome.CLEAN


def test_wrong_settings(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """Invalid settings are refused at the start, all of them at once and with their hints, exit code 78."""
    job = queue.enqueue(jobs.quick)
    hooks = ["no_such_module.hook", "os.sep"]
    settings = {"GRACEFUL_TIMEOUT": -5, "GRACEFUL_TIMEOUTS": 3, "GRACEFUL_EXIT_HOOKS": hooks}
    worker = started(GRACEFUL, settings=settings, wait=False)
    assert worker.wait() == os.EX_CONFIG
    assert "GRACEFUL_TIMEOUT must be a positive number of seconds, got: -5" in worker.output
    assert "GRACEFUL_TIMEOUTS is not a setting of django-rq-graceful; did you mean GRACEFUL_TIMEOUT?" in worker.output
    assert "the hook no_such_module.hook must be importable" in worker.output
    assert "the hook os.sep must be callable" in worker.output
    assert worker.output.count("HINT: ") == 4
    assert "Traceback" not in worker.output
    assert job.get_status(refresh=True) == "queued"
    assert connection.keys("graceful:*") == []
    # Under rqworker the message is the same, though the command is not ours.
    worker = started(RQWORKER, settings=settings, wait=False)
    assert worker.wait() != 0
    assert "GRACEFUL_TIMEOUT must be a positive number of seconds, got: -5" in worker.output
    assert job.get_status(refresh=True) == "queued"


def test_django_rq_is_no_app(connection: redis.Redis, started: Started) -> None:
    """Without django_rq in ``INSTALLED_APPS`` nothing is started, and the message names it; exit code 78."""
    apps = [app for app in django_settings.INSTALLED_APPS if app != "django_rq"]
    worker = started(
        GRACEFUL, settings={"INSTALLED_APPS": apps, "ROOT_URLCONF": "django.contrib.auth.urls"}, wait=False
    )
    assert worker.wait() == os.EX_CONFIG
    assert "INSTALLED_APPS must contain django_rq" in worker.output
    assert 'HINT: Add "django_rq" to INSTALLED_APPS' in worker.output
    assert "Traceback" not in worker.output


def test_wrong_queues(connection: redis.Redis, started: Started) -> None:
    """An unknown queue is refused at the start, with a message."""
    worker = started(GRACEFUL, queues=("nosuch",), wait=False)
    assert worker.wait() == os.EX_CONFIG
    assert "Queues must be in RQ_QUEUES (" in worker.output
    assert "), got: 'nosuch'" in worker.output
    assert "Traceback" not in worker.output


def test_option_skip_checks(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """``--skip-checks`` skips the checks of hooks; invalid settings are still refused."""
    settings = {"GRACEFUL_EXIT_HOOKS": ["no_such_module.hook"]}
    worker = started(GRACEFUL, "--burst", settings=settings, wait=False)
    assert worker.wait() == os.EX_CONFIG
    worker = started(GRACEFUL, "--burst", "--skip-checks", settings=settings, wait=False)
    assert worker.wait() == os.EX_SOFTWARE, "it works, and the report has a hook that failed"
    worker = started(GRACEFUL, "--skip-checks", settings={"GRACEFUL_TIMEOUT": -5}, wait=False)
    assert worker.wait() == os.EX_CONFIG


def test_option_timeout(connection: redis.Redis, queue: Queue, started: Started) -> None:
    """``--timeout`` sets the grace period; an invalid one is refused."""
    worker = started(GRACEFUL, "--timeout", "1.5", settings=SHORT | {"GRACEFUL_TIMEOUT": 60.0})
    job = queue.enqueue(jobs.napping, 30)
    wait_until(lambda: connection.hget(jobs.STARTED, job.id))
    worker.signal()
    assert worker.wait(5) == os.EX_TEMPFAIL
    assert (report_of(connection, worker).seconds.total or 99) < 1.75
    for wrong, message in (("0", "--timeout must be a positive number"), ("5", "GRACEFUL_HOOKS_TIMEOUT must be below")):
        worker = started(GRACEFUL, "--timeout", wrong, settings={"GRACEFUL_HOOKS_TIMEOUT": 5.0}, wait=False)
        assert worker.wait() == os.EX_CONFIG
        assert message in worker.output


def test_the_database_is_away_at_the_end(
    connection: redis.Redis, start_worker: StartWorker, shared_database: str
) -> None:
    """A report that the database did not take at the end is stored later, once."""
    from graceful.models import ShutdownReport as Row

    away = start_worker(environment={"DATABASE_URL": "sqlite://"})
    away.signal()
    assert away.wait(5) == 0
    assert report_of(connection, away).outcome is Outcome.CLEAN
    assert not Row.objects.exists()
    reaper = start_worker()
    wait_until(lambda: Row.objects.filter(worker=away.name).exists(), 5, lambda: reaper.output)
    reaper.signal()
    assert reaper.wait(5) == 0
    assert sorted(Row.objects.values_list("worker", flat=True)) == sorted([away.name, reaper.name])
    assert connection.keys("graceful:*") == []


@pytest.mark.parametrize(
    "options",
    [["--queue-class", "no.Such"], ["--job-class", "no.Such"], ["--serializer", "no.Such"], ["--pid", "/no/p"]],
)
def test_options_that_lead_nowhere(options: list[str], connection: redis.Redis, started: Started) -> None:
    """Invalid command line options are refused without a traceback, exit code 78; no worker is registered."""
    worker = started(GRACEFUL, *options, wait=False)
    assert worker.wait() == os.EX_CONFIG
    assert "Traceback" not in worker.output
    assert options[1] in worker.output
    assert connection.keys("rq:worker*") == []
