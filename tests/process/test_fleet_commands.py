"""``quietworkers`` and ``stopworkers`` from another process, for living workers on real servers."""

from __future__ import annotations

import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from rq import Queue, Worker
from rq.command import send_command

from graceful.core.phases import Reason
from graceful.management.commands import quietworkers, stopworkers
from tests.conftest import StartWorker
from tests.support import jobs, previous_version
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.terminals import TerminalProcess
from tests.support.waiting import let_pass, wait_until

LONG = {"GRACEFUL_TIMEOUT": 30.0, "GRACEFUL_HOOKS_TIMEOUT": 5.0, "GRACEFUL_INTERRUPT_TIMEOUT": 20.0}
HOST = os.uname().nodename


def told(command: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of one of the commands, and the lines that it wrote, without those of its waiting."""
    out = StringIO()
    code = 0
    try:
        call_command(command, *arguments, stdout=out, stderr=out)
    except CommandError as error:
        code = error.returncode
        out.write(str(error))
    return code, [line for line in out.getvalue().splitlines() if "waiting for" not in line]


@pytest.mark.parametrize("worker_class", ["rq.worker.Worker", "rq.worker.SimpleWorker"])
def test_a_worker_is_made_quiet_and_takes_jobs_again(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, worker_class: str
) -> None:
    """A quiet worker finishes its job and takes no other, until it is told to take jobs again; RQ shows its state."""
    worker = start_worker(options=["--worker-class", worker_class], name="one")
    running = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, running.id))
    for _ in range(2):  # Told again, it stays so.
        assert told("quietworkers", "one") == (0, [f"one on {HOST}: quiet"])
    assert report_of(connection, worker).quiet
    waiting = queue.enqueue(jobs.quick)
    connection.rpush("go", 1)
    wait_until(lambda: Worker.all(connection=connection)[0].get_state() == "suspended")
    assert waiting.get_status(refresh=True) == "queued"
    assert running.get_status(refresh=True) == "finished"
    code, _ = told("quietworkers", "one", "--resume")
    assert code == 0
    wait_until(lambda: waiting.get_status(refresh=True) == "finished")
    worker.wait_state("idle")
    assert not report_of(connection, worker).quiet
    assert "Worker one: takes jobs again" in worker.output
    worker.signal()
    assert worker.wait() == 0


def test_a_worker_that_was_quieted_by_a_signal_is_resumed(connection: redis.Redis, start_worker: StartWorker) -> None:
    """SIGTSTP and the command mean the same; SIGCONT, which others send for reasons of their own, ends neither."""
    worker = start_worker(name="one")
    worker.signal(signal.SIGTSTP)
    worker.wait_state("suspended")
    worker.signal(signal.SIGSTOP)
    worker.signal(signal.SIGCONT)
    assert told("quietworkers", "one") == (0, [f"one on {HOST}: quiet"])
    assert told("quietworkers", "one", "--resume") == (0, [f"one on {HOST}: idle"])
    worker.wait_state("idle")


def test_idle_seconds_begin_anew_with_a_resume(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A worker does not count as idle for the time in which it was quiet."""
    worker = start_worker(name="one", options=["--max-idle-time", "2"])
    told("quietworkers", "one")
    worker.wait_state("suspended")
    let_pass(2.5, "it would have counted as idle")
    assert worker.running
    told("quietworkers", "one", "--resume")
    assert worker.wait() == 0
    assert report_of(connection, worker).reason is Reason.IDLE
    assert "idle for 2 seconds" in worker.output


def test_who_is_meant(connection: redis.Redis, start_worker: StartWorker) -> None:
    """Selectors narrow each other; none at all, or --all beside others, is an error, and tells nobody anything."""
    one = start_worker(["default"], name="one", settings={"GRACEFUL_RELEASE": "1"}, wait=False)
    two = start_worker(["high", "low"], name="two", settings={"GRACEFUL_RELEASE": "2"}, wait=False)
    one.wait_started()
    two.wait_started()

    def quieted(*arguments: str) -> set[str]:
        code, lines = told("quietworkers", *arguments)
        assert code == 0, lines
        told("quietworkers", "--all", "--resume")
        return {line.split()[0] for line in lines}

    for wrong in ([], ["--all", "one"], ["--all", "--release", "1"]):
        code, lines = told("quietworkers", *wrong)
        assert (code, lines[0][:10]) == (2, "Say which "), lines
    assert not report_of(connection, one).quiet
    assert quieted("--all") == {"one", "two"}
    assert quieted("--host", HOST) == {"one", "two"}
    assert quieted("--queue", "low") == {"two"}
    assert quieted("--release", "1") == {"one"}
    assert quieted("one", "two", "--queue", "default") == {"one"}
    assert told("quietworkers", "--queue", "low", "--release", "1") == (1, ["No living worker fits."])
    code, lines = told("quietworkers", "one", "three\x1b[2J")
    assert (code, lines) == (
        1,
        [r"three\x1b[2J is not the name of a living worker", f"one on {HOST}: quiet", lines[-1]],
    )


def test_those_that_cannot_be_made_quiet_are_named(
    connection: redis.Redis,
    queue: Queue,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker of the version before and a stock one ignore the command and are named; so is one that stands."""
    (tmp_path / "before").mkdir()
    environment = previous_version.unpack(tmp_path / "before")
    old = start_worker(["high"], name="old", environment=environment, wait=False)
    stock = start_worker(["low"], name="stock", command="rqworker", wait=False)
    frozen = start_worker(["default"], name="frozen", wait=False)
    for worker in (old, stock, frozen):
        worker.wait_started()
    frozen.signal(signal.SIGSTOP)
    monkeypatch.setattr(quietworkers, "CONFIRM_SECONDS", 1.5)
    code, lines = told("quietworkers", "old", "frozen", "stock")
    assert code == os.EX_TEMPFAIL
    assert lines[0] == "stock is a worker of RQ that is not graceful"
    assert {line.partition(": has not said so")[0] for line in lines[1:]} == {
        f"frozen on {HOST}: idle",
        f"old on {HOST}: idle",
    }
    send_command(connection, "stock", "quiet")
    for name in ("high", "low"):
        job = Queue(name, connection=connection).enqueue(jobs.quick)
        wait_until(lambda job=job: job.get_status(refresh=True) == "finished")  # type: ignore[misc]
    assert old.running
    assert stock.running


def test_workers_are_stopped_and_waited_for(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Each is told once, its job has its time, and the command ends when the last worker has."""
    busy = start_worker(name="busy", settings=LONG)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    idle = start_worker(["high"], name="idle")
    assert told("stopworkers", "busy")[0] == 0
    wait_until(lambda: report_of(connection, busy).phase == "draining")
    code, lines = told("stopworkers", "--all", "--wait", "1")
    assert code == os.EX_TEMPFAIL
    assert lines[:2] == [f"idle on {HOST}: ended", f"busy on {HOST}: draining: has not ended within 1 s"]
    assert idle.wait() == 0
    connection.rpush("go", 1)
    assert busy.wait() == 0
    report = report_of(connection, busy)
    assert (report.reason, "asked to stop again" in busy.output) == (Reason.COMMAND, False)
    assert job.get_status(refresh=True) == "finished"
    assert told("stopworkers", "--all") == (1, ["No living worker fits."])


def test_a_worker_that_does_not_listen_is_named(
    connection: redis.Redis, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to stop that nobody has heard is not said to be done."""
    start_worker(name="dead").kill_session()
    monkeypatch.setattr(stopworkers, "CONFIRM_SECONDS", 0.5)
    code, lines = told("stopworkers", "dead")
    assert (code, lines[-1].startswith(f"dead on {HOST}: idle: nobody listened")) == (os.EX_TEMPFAIL, True)


def test_a_server_that_is_away_is_said(
    own_valkey: Server, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers on other servers are told all the same; the exit code says that not all servers were reached."""
    worker = start_worker(name="one")
    gone: dict[str, Any] = {"high": {"HOST": "127.0.0.1", "PORT": 9}}
    monkeypatch.setattr(settings, "RQ_QUEUES", {**settings.RQ_QUEUES, **gone})
    code, lines = told("quietworkers", "--all")
    assert (code, lines[0]) == (os.EX_UNAVAILABLE, f"one on {HOST}: quiet")
    assert report_of(worker.connection, worker).quiet
    own_valkey.stop()
    assert told("quietworkers", "--all")[0] == os.EX_UNAVAILABLE


def test_the_line_on_a_terminal(
    valkey: Server, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """On a terminal one line, written over, tells who is waited for."""
    start_worker(name="busy", settings=LONG)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    command = TerminalProcess(["stopworkers", "busy", "--wait"], {"TEST_REDIS_URL": valkey.url})
    try:
        command.wait_seen(f"0 of 1 have ended; waiting for busy on {HOST}: draining")
        connection.rpush("go", 1)
        assert command.wait() == 0
        assert f"busy on {HOST}: ended" in command.screen
    finally:
        command.close()


@pytest.mark.usefixtures("shared_database")
def test_the_admin_makes_a_worker_quiet(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, client: Client
) -> None:
    """From the list of living workers, over a confirmation; the next page shows it, and the way back."""
    client.force_login(User.objects.create_superuser("admin"))
    start_worker(["high"], name="before", settings={"GRACEFUL_RELEASE": "1"}).signal()
    worker = start_worker(name="one", settings={"GRACEFUL_RELEASE": "2"})
    last = "/admin/graceful/lastdeploy/"
    quiet = f"{last}worker/{report_of(connection, worker).id}/quiet/"
    wait_until(lambda: quiet in client.get(last).content.decode())
    assert client.get(quiet).status_code == 200
    page = client.post(quiet, follow=True).content.decode()
    assert "Worker one takes no new job." in page
    worker.wait_state("suspended")
    resume = quiet.replace("/quiet/", "/resume/")
    wait_until(lambda: resume in client.get(last).content.decode())
    assert "Worker one takes jobs again." in client.post(resume, follow=True).content.decode()
    worker.wait_state("idle")
    assert list(LogEntry.objects.values_list("change_message", flat=True).order_by("id")) == [
        "Asked to be quiet.",
        "Asked to take jobs again.",
    ]
