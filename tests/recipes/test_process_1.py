"""The Dockerfile's command as process 1 of a PID namespace, as in a container: who gets the signal, who reaps."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.recipe_files import only
from tests.support.reports import report_of
from tests.support.waiting import wait_until

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
Wrapped = Callable[[list[str]], list[str]]


def exec_form(command: list[str]) -> list[str]:
    """``CMD ["python", ...]`` without an entry point."""
    return [*NAMESPACE, *command]


def recipe(command: list[str]) -> list[str]:
    """The entry point of the recipe's Dockerfile before the command."""
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", only("recipes/docker", "dockerfile"), re.MULTILINE)
    return [*NAMESPACE, *json.loads(entry), *command]


def shell_form(command: list[str]) -> list[str]:
    """``CMD python ...``: Docker runs ``/bin/sh -c`` for it."""
    return [*NAMESPACE, "/bin/sh", "-c", shlex.join(command)]


def entrypoint_with_exec(command: list[str]) -> list[str]:
    """A script as the entry point, which ends in ``exec "$@"``."""
    return [*NAMESPACE, "/bin/sh", "-c", 'true; exec "$@"', "entrypoint", *command]


def process_1(worker: WorkerProcess) -> int:
    """The id, outside of the namespace, of its process 1."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    return int(wait_until(lambda: children.read_text().split(), 10, lambda: worker.output)[0])


def programs(worker: WorkerProcess) -> dict[int, tuple[str, str]]:
    """Name and state of each process of the worker's session, zombies included."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().partition("(")[2].rsplit(")", 1)
        except OSError:
            continue
        # proc_pid_stat(5): state is the third field, session the sixth.
        if int(fields.split()[3]) == worker.pid:
            found[int(stat.parent.name)] = (name, fields.split()[0])
    return found


@pytest.mark.parametrize("form", [recipe, exec_form, entrypoint_with_exec])
def test_the_worker_gets_the_signal(
    form: Wrapped, start_worker: StartWorker, connection: redis.Redis, queue: Queue
) -> None:
    """``docker stop`` reaches a busy worker, which finishes its job; the container has the worker's exit code."""
    job = queue.enqueue(jobs.until_released, "go")
    worker = start_worker(wrapped=form)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: worker.output)
    os.kill(process_1(worker), signal.SIGTERM)
    worker.wait_output("shutdown requested (SIGTERM)")
    connection.rpush("go", 1)
    assert worker.wait() == report_of(connection, worker).exit_code == 0, worker.output
    assert job.get_status(refresh=True) == "finished"


def test_a_shell_in_front_keeps_the_signal(start_worker: StartWorker, queue: Queue) -> None:
    """With the shell form the worker never hears of ``docker stop``: it takes the next job as before."""
    worker = start_worker(wrapped=shell_form)
    os.kill(process_1(worker), signal.SIGTERM)
    job = queue.enqueue(jobs.quick)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: worker.output)
    assert "shutdown requested" not in worker.output
    worker.clear()


@pytest.mark.parametrize(("form", "lost"), [(exec_form, True), (recipe, False)])
def test_a_signal_before_django_is_loaded(
    form: Wrapped, lost: bool, start_worker: StartWorker, queue: Queue, tmp_path: Path
) -> None:
    """As process 1, Python without a handler ignores SIGTERM, and the worker starts all the same; with tini it ends."""
    loading, go = tmp_path / "loading", tmp_path / "go"
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.support.settings_that_wait",
        "TEST_LOADING": str(loading),
        "TEST_GO": str(go),
    }
    worker = start_worker(wrapped=form, environment=environment, wait=False)
    wait_until(loading.exists, 10, lambda: worker.output)
    os.kill(process_1(worker), signal.SIGTERM)
    if lost:
        go.touch()
        worker.wait_started()
        os.kill(process_1(worker), signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    else:
        assert worker.wait() == 128 + signal.SIGTERM, worker.output


@pytest.mark.parametrize(("form", "reaped"), [(exec_form, False), (recipe, True)])
def test_what_a_job_leaves_behind(form: Wrapped, reaped: bool, start_worker: StartWorker, queue: Queue) -> None:
    """Processes that outlive their job are reaped by tini; without it they stay as zombies."""
    worker = start_worker(wrapped=form)
    job = queue.enqueue(jobs.leaves_a_process)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: worker.output)

    def sleeps() -> list[str]:
        return [state for name, state in programs(worker).values() if name == "sleep"]

    wait_until(lambda: sleeps() == ([] if reaped else ["Z"]), 10, lambda: str(programs(worker)))
    os.kill(process_1(worker), signal.SIGTERM)
    assert worker.wait() == 0, worker.output
