"""What a real worker tells systemd, in whose place is a socket of ours."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs, worker_jobs
from tests.support.systemd import NotifySocket
from tests.support.waiting import let_pass, wait_until

LONG = {"GRACEFUL_TIMEOUT": 30.0, "GRACEFUL_HOOKS_TIMEOUT": 5.0, "GRACEFUL_INTERRUPT_TIMEOUT": 20.0}
WATCHDOG = {"WATCHDOG_USEC": "400000"}


@pytest.fixture
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotifySocket]:
    manager = NotifySocket(str(tmp_path_factory.mktemp("n") / "s"))
    yield manager
    manager.close()


def unit(systemd: NotifySocket, **more: str) -> dict[str, str]:
    """The environment that systemd gives to a unit's process."""
    return {"NOTIFY_SOCKET": systemd.address, **more}


def extensions(systemd: NotifySocket) -> list[float]:
    return [int(line.partition("=")[2]) / 1e6 for line in systemd.said("EXTEND_TIMEOUT_USEC=")]


def test_a_life(connection: redis.Redis, queue: Queue, start_worker: StartWorker, systemd: NotifySocket) -> None:
    """Ready when it takes jobs; stopping at once, with the seconds left and never more time than that; how it ended."""
    settings = {**LONG, "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.naps"]}
    worker = start_worker(settings=settings, environment=unit(systemd))
    assert systemd.said("READY") == ["READY=1"]
    wait_until(lambda: "STATUS=takes jobs" in systemd.lines)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    assert not extensions(systemd)
    worker.signal()
    wait_until(lambda: systemd.said("STOPPING"))
    (message,) = [each for each in systemd.messages if each.startswith("STOPPING=1")]
    assert message.split("\n")[1] in ("STATUS=draining, 30 s left", "STATUS=draining, 29 s left")
    wait_until(lambda: len(extensions(systemd)) >= 3)
    connection.rpush("go", 1)
    wait_until(lambda: systemd.said("STATUS=exit hook tests.support.worker_hooks.naps, "))
    assert worker.wait() == 0
    assert systemd.lines[-1] == "STATUS=clean, exit code 0"
    seconds = extensions(systemd)
    assert seconds == sorted(seconds, reverse=True)
    assert 25 < seconds[0] <= 30
    assert systemd.said("WATCHDOG") == []
    assert systemd.said("STOPPING") == ["STOPPING=1"]


def test_a_burst_that_is_over_at_once(
    connection: redis.Redis, start_worker: StartWorker, systemd: NotifySocket
) -> None:
    """It has said that it was ready before it says that it stops: for systemd it would have failed to start."""
    worker = start_worker(options=["--burst"], environment=unit(systemd), wait=False)
    assert worker.wait() == 0
    said = [line for line in systemd.lines if not line.startswith("STATUS=")]
    assert (said[0], said[1]) == ("READY=1", "STOPPING=1")


if sys.platform == "linux":

    def test_an_abstract_socket(connection: redis.Redis, start_worker: StartWorker) -> None:
        """A name that begins with @ is in no file system."""
        manager = NotifySocket(f"@graceful-test-{os.getpid()}")
        try:
            start_worker(environment=unit(manager))
            assert manager.said("READY") == ["READY=1"]
        finally:
            manager.close()


def test_the_watchdog(connection: redis.Redis, queue: Queue, start_worker: StartWorker, systemd: NotifySocket) -> None:
    """Pings come while the worker is idle, busy and draining; after the drain systemd has been told its end."""
    settings = {**LONG, "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.naps"]}
    worker = start_worker(settings=settings, environment=unit(systemd, **WATCHDOG))

    def pinged() -> bool:
        before = len(systemd.said("WATCHDOG"))
        return wait_until(lambda: len(systemd.said("WATCHDOG")) >= before + 3)

    assert pinged()
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    assert pinged()
    worker.signal()
    wait_until(lambda: systemd.said("STOPPING"))
    assert pinged()
    connection.rpush("go", 1)
    assert worker.wait() == 0
    hook = next(number for number, line in enumerate(systemd.lines) if line.startswith("STATUS=exit hook "))
    assert "WATCHDOG=1" not in systemd.lines[hook:]
    last_ping = max(number for number, line in enumerate(systemd.lines) if line == "WATCHDOG=1")
    assert [line for line in systemd.lines[last_ping:] if line.startswith("EXTEND_TIMEOUT_USEC=")]


def test_a_loop_that_hangs_is_not_pinged_for(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, systemd: NotifySocket
) -> None:
    """Pings end with the loop's signs of life, so that systemd restarts it."""
    options = ["--worker-class", "tests.support.hung_workers.Hanging"]
    worker = start_worker(options=options, environment=unit(systemd, **WATCHDOG))
    wait_until(lambda: systemd.said("WATCHDOG"))
    queue.enqueue(jobs.quick)

    def silent() -> bool:
        before = len(systemd.said("WATCHDOG"))
        let_pass(0.7, "three pings would have come")
        return len(systemd.said("WATCHDOG")) == before

    wait_until(silent)
    assert worker.running


@pytest.mark.parametrize(
    "environment",
    [{"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
def test_a_watchdog_that_is_not_meant(
    connection: redis.Redis, start_worker: StartWorker, systemd: NotifySocket, environment: dict[str, str]
) -> None:
    """Another process's watchdog, or none, gets no pings."""
    worker = start_worker(environment=unit(systemd, **environment))
    worker.signal()
    assert worker.wait() == 0
    assert systemd.said("WATCHDOG") == []
    assert systemd.said("READY") == ["READY=1"]


def test_only_the_units_own_process(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, systemd: NotifySocket
) -> None:
    """Jobs and what they start do not inherit the socket; a worker that is not the unit's process says nothing."""
    start_worker(environment=unit(systemd, **WATCHDOG))
    job = queue.enqueue(worker_jobs.environment_of_a_child, "NOTIFY_SOCKET", "WATCHDOG_USEC")
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    assert job.return_value() == [None, None, None, None]
    before = len(systemd.said("READY"))
    start_worker(["high"], environment=unit(systemd, SYSTEMD_EXEC_PID="1"))
    assert len(systemd.said("READY")) == before


def test_a_socket_that_is_not_there(connection: redis.Redis, start_worker: StartWorker, tmp_path: Any) -> None:
    """It is said once, and the worker works."""
    worker = start_worker(environment={"NOTIFY_SOCKET": str(tmp_path / "none"), **WATCHDOG})
    worker.wait_output("systemd cannot be told how it is")
    worker.signal()
    assert worker.wait() == 0
    assert worker.output.count("systemd cannot be told") == 1


def test_quiet_is_shown(connection: redis.Redis, start_worker: StartWorker, systemd: NotifySocket) -> None:
    """``systemctl status`` says that a worker is quiet."""
    worker = start_worker(environment=unit(systemd, **WATCHDOG))
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: "STATUS=quiet" in systemd.lines)


def test_a_pool(connection: redis.Redis, start_worker: StartWorker, systemd: NotifySocket) -> None:
    """The parent speaks for the unit, its workers do not: ready with all of them, new code, the end, the watchdog."""
    pool = start_worker(
        options=["--workers", "2"], settings=LONG, environment=unit(systemd, **WATCHDOG), name="pool", wait=False
    )
    wait_until(lambda: "STATUS=2 of 2 workers take jobs" in systemd.lines, 20, lambda: pool.output)
    wait_until(lambda: len(systemd.said("WATCHDOG")) > 3)
    assert systemd.said("READY") == ["READY=1"]
    pool.signal(signal.SIGHUP)
    wait_until(lambda: len(systemd.said("READY")) == 2, 30, lambda: pool.output)
    reloading = [each.split("\n") for each in systemd.messages if each.startswith("RELOADING=1")]
    assert [(len(each), each[1][:15]) for each in reloading] == [(2, "MONOTONIC_USEC=")]
    assert "workers are replaced" in pool.output
    assert not extensions(systemd)
    pool.signal()
    assert pool.wait() == 0
    assert systemd.said("STOPPING") == ["STOPPING=1"]
    seconds = extensions(systemd)
    assert 25 < seconds[0] <= 31
    assert seconds == sorted(seconds, reverse=True)
    assert systemd.lines[-1] == "STATUS=exit code 0"
