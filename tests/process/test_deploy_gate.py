"""Real deploys of one release after another, and what the gate of a pipeline says of them."""

from __future__ import annotations

import os
from datetime import datetime
from io import StringIO
from threading import Event
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import OperationalError
from rq import Queue

from graceful.management.commands import wait_for_deploy
from graceful.models import Release, ReportedJob
from graceful.reports.deploys import gate as gate_module
from graceful.reports.deploys.rows import known_releases
from graceful.reports.resumed import RESUMED_KEY
from graceful.reports.sources import archive_everything
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.server import Server
from tests.support.waiting import wait_until

SETTINGS = {"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 2.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}

pytestmark = pytest.mark.usefixtures("shared_database")


def of_release(start_worker: StartWorker, label: str, **settings: Any) -> WorkerProcess:
    return start_worker(settings={**SETTINGS, "GRACEFUL_RELEASE": label, **settings})


def gate(label: str, **options: Any) -> tuple[int, str]:
    """Exit code and output of ``wait_for_deploy``."""
    out = StringIO()
    with pytest.raises(SystemExit) as left:
        call_command("wait_for_deploy", release=label, stdout=out, stderr=out, **{"timeout": 60.0, **options})
    assert isinstance(left.value.code, int)
    return left.value.code, out.getvalue()


def test_a_clean_deploy(connection: redis.Redis, start_worker: StartWorker) -> None:
    """All workers of the release before end cleanly and the new one has its workers: exit code 0."""
    old = [of_release(start_worker, "1") for _number in range(2)]
    new = of_release(start_worker, "2")
    for worker in old:
        worker.signal()
    code, said = gate("2")
    assert code == os.EX_OK, said
    assert "Release 1: 2 of 2 workers ended cleanly. No job was interrupted." in said
    # The gate goes by their reports; a process may need a moment more.
    assert [worker.wait(10) for worker in old] == [os.EX_OK, os.EX_OK]
    assert new.running
    assert set(Release.objects.values_list("label", flat=True)) == {"1", "2"}
    # What is over before the first look is found too.
    assert gate("2")[0] == os.EX_OK


def test_an_interrupted_job_and_where_it_went(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """A job is interrupted: exit code 75, and its report says when it ran again, on which worker, and how that went."""
    job = queue.enqueue(jobs.once_long)
    old = of_release(start_worker, "1")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 20, lambda: old.output)
    old.signal()
    old.wait()
    new = of_release(start_worker, "2")
    wait_until(lambda: job.get_status() == "finished", 20, lambda: new.output)
    code, said = gate("2")
    assert code == os.EX_TEMPFAIL, said
    assert "1 job was interrupted, and ran again within" in said
    row = ReportedJob.objects.get(job_id=job.id, outcome="interrupted")
    assert (row.again_worker, row.again_release, row.again_outcome) == (new.name, "2", "finished")
    assert row.again_at is not None
    assert row.again_ended_at is not None
    assert row.report.ended_at is not None
    assert row.report.drained_at is not None
    assert row.report.drained_at < row.again_at <= row.again_ended_at
    assert connection.hlen(RESUMED_KEY) == 0
    with pytest.raises(SystemExit) as left:
        call_command("shutdown_report", release="1", fail_if_unclean=True, stdout=StringIO())
    assert left.value.code == os.EX_TEMPFAIL


def test_a_failed_hook(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A hook of a worker of the release before fails: exit code 70."""
    old = of_release(start_worker, "1", GRACEFUL_EXIT_HOOKS=["tests.support.worker_hooks.failing"])
    of_release(start_worker, "2")
    old.signal()
    code, said = gate("2")
    assert code == os.EX_SOFTWARE, said
    assert "Release 1: 0 of 1 worker ended cleanly. Not clean: 1 hooks failed." in said


def test_stale_workers(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A worker of the release before that nobody stops, or too few of the new one: exit code 1, and it is named."""
    old = of_release(start_worker, "1")
    code, said = gate("2", timeout=1.0)
    assert code == 1, said
    assert "No worker of release 2 runs." in said
    new = of_release(start_worker, "2")
    code, said = gate("2", timeout=1.0)
    assert code == 1, said
    assert f"{old.name} on " in said
    assert new.name not in said
    old.signal()
    old.wait()
    code, said = gate("2", timeout=1.0, workers=2)
    assert code == 1, said
    assert "Only 1 of 2 workers of release 2 run." in said


def test_burst_workers_are_no_part_of_a_deploy(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A worker that ends of itself meanwhile, even with a failed hook, does not make the deploy fail."""
    settings = {**SETTINGS, "GRACEFUL_RELEASE": "1", "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.failing"]}
    start_worker(options=["--burst"], settings=settings, wait=False).wait()
    old = of_release(start_worker, "1")
    of_release(start_worker, "2")
    old.signal()
    code, said = gate("2")
    assert code == os.EX_OK, said


def test_redis_is_away(own_valkey: Server) -> None:
    """Redis is unreachable until the timeout: exit code 69, and not that all is well."""
    own_valkey.stop()
    with pytest.raises(CommandError, match="Redis is unreachable") as left:
        call_command("wait_for_deploy", release="2", timeout=1.0, stdout=StringIO())
    assert left.value.returncode == os.EX_UNAVAILABLE


def test_the_database_is_away_for_a_while(
    connection: redis.Redis, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover of the database during the deploy is waited out: the verdict is that of the deploy."""
    of_release(start_worker, "2")
    answers = iter([OperationalError("server closed the connection"), OperationalError("connection refused")])

    def known() -> dict[str, datetime]:
        if (error := next(answers, None)) is not None:
            raise error
        return known_releases()

    monkeypatch.setattr(gate_module, "known_releases", known)
    code, said = gate("2")
    assert code == os.EX_OK, said
    assert "The database is unreachable" in said


@pytest.mark.parametrize("where", ["known_releases", "last_release_but"])
def test_the_database_hangs(
    connection: redis.Redis, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A database that does not answer, at a look or at the end, ends the waiting at the timeout: exit code 69."""
    of_release(start_worker, "2")
    answer = Event()
    monkeypatch.setattr(wait_for_deploy, "DATABASE_SECONDS", 0.5)
    monkeypatch.setattr(gate_module, where, lambda *_: answer.wait(60))
    try:
        with pytest.raises(CommandError, match="cannot be read: no answer within") as left:
            call_command("wait_for_deploy", release="2", timeout=1.0, stdout=StringIO())
    finally:
        answer.set()
    assert left.value.returncode == os.EX_UNAVAILABLE


@pytest.mark.parametrize("arguments", [["--release", ""], ["--release", "2", "--timeout", "nan"], []])
def test_wrong_arguments(arguments: list[str]) -> None:
    """Arguments that make no sense are told, before anything is waited for."""
    with pytest.raises(CommandError, match=r"expected|required"):
        call_command("wait_for_deploy", *arguments)


def test_nothing_is_noted_of_jobs_that_were_never_interrupted(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Ordinary jobs leave no entry."""
    done = [queue.enqueue(jobs.quick, number) for number in range(3)]
    start_worker(options=["--burst"], wait=False).wait()
    assert [job.get_status() for job in done] == ["finished"] * 3
    assert not connection.exists(RESUMED_KEY)
    archive_everything(5.0)
