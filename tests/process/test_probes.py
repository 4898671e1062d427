"""Probes of real workers: over a port and over a Unix socket, in each state of a worker."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.command import send_command
from rq.suspension import resume, suspend

from graceful.probe import ask
from graceful.worker.probes.server import REQUEST_SECONDS
from tests.conftest import StartWorker
from tests.support import jobs, resumable_jobs, worker_jobs
from tests.support.reports import report_of
from tests.support.server import Server
from tests.support.waiting import wait_until

LONG = {"GRACEFUL_TIMEOUT": 30.0, "GRACEFUL_HOOKS_TIMEOUT": 5.0, "GRACEFUL_INTERRUPT_TIMEOUT": 20.0}
OK = (True, "ok")


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a Unix socket may be: such a path is at most 107 characters long."""
    return str(tmp_path_factory.mktemp("p") / "s")


def http_answer(port: int, target: str, method: str = "GET") -> tuple[int, str]:
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        caller.request(method, target)
        response = caller.getresponse()
        return response.status, response.read().decode()
    finally:
        caller.close()


def status(path: str) -> dict[str, Any]:
    answered, text = ask("status", path)
    assert answered, text
    found: dict[str, Any] = json.loads(text)
    return found


def test_over_http(connection: redis.Redis, start_worker: StartWorker, port: int) -> None:
    """GET and HEAD of three addresses; anything else is refused, and nothing of it is logged."""
    worker = start_worker(options=["--probe-port", str(port)])
    assert http_answer(port, "/live") == (200, "ok\n")
    assert http_answer(port, "/ready?verbose") == (200, "ok\n")
    assert http_answer(port, "/ready", "HEAD") == (200, "")
    code, text = http_answer(port, "/status")
    assert (code, json.loads(text)["worker"]) == (200, worker.name)
    assert http_answer(port, "/")[0] == 404
    assert http_answer(port, "/live", "POST")[0] == 405
    with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        caller.sendall(b"hello\r\n\r\n")
        assert caller.recv(100).startswith(b"HTTP/1.1 400 ")
    assert "/live" not in worker.output
    worker.signal()
    assert worker.wait() == 0


def test_the_setting_and_a_port_that_is_taken(connection: redis.Redis, start_worker: StartWorker, port: int) -> None:
    """The port comes from the settings, too; a second worker on it does not start, and says why."""
    settings = {"GRACEFUL_PROBE_PORT": port}
    start_worker(settings=settings)
    assert http_answer(port, "/ready")[0] == 200
    second = start_worker(settings=settings, wait=False)
    assert second.wait() == os.EX_CONFIG
    assert f"GRACEFUL_PROBE_PORT must be a port that is free on 127.0.0.1, got: {port} (" in second.output
    assert connection.hlen("graceful:workers") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--probe-port", "0"], "--probe-port must be a whole number from 1 to 65535, got: '0'"),
        (["--probe-port", "80a"], "--probe-port must be a whole number from 1 to 65535, got: '80a'"),
        (["--probe-port", "9999999"], "--probe-port must be a whole number from 1 to 65535, got: '9999999'"),
        (
            ["--probe-port", "4000", "--probe-host", "256.1.1.1"],
            "--probe-host must be an address of this machine, got:",
        ),
        (["--probe-socket", "/no/such/directory/s"], "--probe-socket must be a path where a socket can be made, got:"),
        (["--probe-socket", "/etc/passwd"], "got: '/etc/passwd' (Address already in use)"),
    ],
)
def test_wrong_values(connection: redis.Redis, start_worker: StartWorker, options: list[str], said: str) -> None:
    """A wrong address names option, rule and value, before anything is started."""
    worker = start_worker(options=options, wait=False)
    assert worker.wait() == os.EX_CONFIG
    assert said in worker.output
    assert not connection.exists("graceful:workers")


def test_each_state(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, path: str, tmp_path: Path
) -> None:
    """Ready while it takes jobs: not while quiet, or from the first signal on; alive until the end of its hooks."""
    settings = {**LONG, "GRACEFUL_EXIT_HOOKS": ["tests.support.worker_hooks.naps"]}
    worker = start_worker(options=["--probe-socket", path], settings=settings)
    assert (ask("live", path), ask("ready", path)) == (OK, OK)
    found = status(path)
    assert (found["phase"], found["ready"], found["job"], found["seconds_left"]) == ("running", True, None, None)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: ask("ready", path) == (False, "quiet"))
    send_command(connection, worker.name, "resume")
    wait_until(lambda: ask("ready", path) == OK)
    job = queue.enqueue(resumable_jobs.slow_at, 39, 200)
    queue.enqueue(jobs.quick)

    def shown() -> tuple[Any, ...]:
        found = status(path)["job"] or {}
        return found.get("id"), found.get("function"), found.get("progress")

    function = "tests.support.resumable_jobs.slow_at"
    wait_until(lambda: shown() == (job.id, function, {"done": 39, "total": 200}), description=lambda: str(shown()))
    assert ask("ready", path) == OK, "a busy worker takes jobs, one after the other"
    worker.signal()
    wait_until(lambda: ask("ready", path) == (False, "stopping"))
    assert ask("live", path) == OK
    found = status(path)
    assert (found["phase"], found["alive"]) == ("draining", True)
    assert 0 < found["seconds_left"] <= 30
    wait_until(lambda: ask("status", path)[1].find("worker_hooks.naps") > 0, 40)
    assert ask("live", path) == OK
    assert worker.wait() == os.EX_TEMPFAIL
    assert not os.path.exists(path)
    assert ask("live", path)[1].startswith("There is no socket ")
    assert report_of(connection, worker).exit_code == os.EX_TEMPFAIL


def test_a_program_asks(connection: redis.Redis, start_worker: StartWorker, path: str) -> None:
    """``python -m graceful.probe`` and ``manage.py worker_probe``: exit code 0 for yes, 1 for no and for no answer."""
    worker = start_worker(options=["--probe-socket", path])
    for program in (["graceful.probe"], ["django", "worker_probe"]):

        def asked(question: str, program: list[str] = program) -> tuple[int, str]:
            run = subprocess.run(
                [sys.executable, "-m", *program, question, "--socket", path],
                capture_output=True,
                text=True,
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            )
            return run.returncode, (run.stderr if run.returncode else run.stdout).strip()

        assert asked("ready") == (0, "ok")
        assert json.loads(asked("status")[1])["worker"] == worker.name
        worker.signal(signal.SIGSTOP)
        code, said = asked("live")
        assert (code, said.endswith("does not answer within 2 s.")) == (1, True)
        worker.signal(signal.SIGCONT)
        worker.signal(signal.SIGTSTP)
        wait_until(lambda: ask("ready", path) == (False, "quiet"))
        code, said = asked("ready")
        assert (code, said.endswith("quiet")) == (1, True)
        send_command(connection, worker.name, "resume")
        wait_until(lambda: ask("ready", path) == OK)


def test_nothing_heavy_is_imported() -> None:
    """A probe that runs often loads neither Django nor redis nor RQ."""
    code = "import sys, graceful.probe; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"django", "redis", "rq", "logging", "asyncio"} & set(loaded)


def test_a_socket_that_a_killed_worker_left(connection: redis.Redis, start_worker: StartWorker, path: str) -> None:
    """It is replaced; one on which a worker listens is not."""
    first = start_worker(options=["--probe-socket", path])
    second = start_worker(options=["--probe-socket", path], wait=False)
    assert second.wait() == os.EX_CONFIG
    assert "(Address already in use)" in second.output
    assert ask("ready", path) == OK
    first.kill_session()
    assert ask("live", path)[1] == f"No worker listens at {path}: it was killed."
    start_worker(options=["--probe-socket", path])
    assert ask("ready", path) == OK
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"


def test_a_horse_does_not_listen(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, port: int, path: str
) -> None:
    """A horse that outlives its worker holds neither port nor socket, so that another worker may start on them."""
    start_worker(options=["--probe-port", str(port), "--probe-socket", path])
    job = queue.enqueue(worker_jobs.listening_sockets)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    assert job.return_value() == []
    assert http_answer(port, "/live") == (200, "ok\n")


def test_callers_that_say_nothing(connection: redis.Redis, start_worker: StartWorker, port: int) -> None:
    """Many idle connections keep nobody from an answer, hold up no exit, and are dropped."""
    worker = start_worker(options=["--probe-port", str(port)])
    began = time.monotonic()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(40)]
    idle[-1].sendall(b"GET /live HTTP/1.1\r\nX: ")
    assert http_answer(port, "/live") == (200, "ok\n")
    assert idle[0].recv(1) == b"", "the oldest is dropped at once"
    assert time.monotonic() - began < REQUEST_SECONDS
    assert idle[-1].recv(1) == b"", "each after its time"
    more = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    worker.signal()
    assert worker.wait(5) == 0
    for each in (*idle, *more):
        each.close()


def test_a_main_thread_in_c_code(connection: redis.Redis, queue: Queue, start_worker: StartWorker, path: str) -> None:
    """A job of a SimpleWorker that stands in C code is no hung loop, and probes are answered meanwhile."""
    start_worker(options=["--probe-socket", path, "--worker-class", "rq.worker.SimpleWorker"])
    job = queue.enqueue(jobs.sleeping, 30)
    wait_until(lambda: connection.hget(jobs.PIDS, job.id))
    assert (ask("live", path), ask("ready", path)) == (OK, OK)
    assert status(path)["job"]["id"] == job.id


def test_redis_is_away(own_valkey: Server, start_worker: StartWorker, path: str) -> None:
    """A worker without Redis is not ready, so that a deploy does not go on; it is alive: no restart would help."""
    start_worker(options=["--probe-socket", path])
    own_valkey.stop()
    wait_until(lambda: ask("ready", path) == (False, "Redis is unreachable"))
    assert ask("live", path) == OK
    own_valkey.start()
    wait_until(lambda: ask("ready", path) == OK, 20)


def test_a_suspended_worker(connection: redis.Redis, start_worker: StartWorker, path: str) -> None:
    """It is not ready while RQ's workers are suspended."""
    suspend(connection)
    worker = start_worker(options=["--probe-socket", path], wait=False)
    worker.wait_state("suspended")
    assert (ask("ready", path), ask("live", path)) == ((False, "suspended"), OK)
    resume(connection)
    wait_until(lambda: ask("ready", path) == OK)


def test_a_loop_that_hangs(connection: redis.Redis, queue: Queue, start_worker: StartWorker, path: str) -> None:
    """It is no longer alive nor ready, and says so; once it is stopped its end is bounded, and it is alive again."""
    hanging = ["--worker-class", "tests.support.hung_workers.Hanging"]
    settings = {"GRACEFUL_TIMEOUT": 4.0, "GRACEFUL_HOOKS_TIMEOUT": 1.0, "GRACEFUL_INTERRUPT_TIMEOUT": 1.0}
    worker = start_worker(options=["--probe-socket", path, *hanging], settings=settings)
    queue.enqueue(jobs.quick)
    wait_until(lambda: ask("live", path)[1].startswith("the worker's loop has given no sign of life for "))
    assert not ask("ready", path)[0]
    worker.signal()
    wait_until(lambda: ask("ready", path) == (False, "stopping"))
    assert ask("live", path) == OK
    assert worker.wait(10) == os.EX_SOFTWARE


def test_a_pool(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker, path: str, port: int, tmp_path: Path
) -> None:
    """The parent answers: ready once a worker takes jobs, not from the first signal on; each worker has its state."""
    options = ["--workers", "2", "--probe-socket", path]
    pool = start_worker(options=options, settings={**LONG, "GRACEFUL_PROBE_PORT": port}, name="pool", wait=False)
    wait_until(lambda: ask("ready", path) == OK, 20, lambda: pool.output)
    wait_until(lambda: [each["state"] for each in status(path)["workers"]] == ["up", "up"], 10)
    found = status(path)
    assert (found["pool"], found["phase"], found["alive"], found["seconds_left"]) == ("pool", "running", True, None)
    assert http_answer(port, "/live") == (200, "ok\n")
    before = [each["pid"] for each in found["workers"]]
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: [each["state"] for each in status(path)["workers"]] == ["up", "waiting"], 10)
    assert ask("ready", path) == OK, "the other one takes jobs"
    wait_until(lambda: [each["state"] for each in status(path)["workers"]] == ["up", "up"], 10)
    assert status(path)["workers"][1]["pid"] not in before
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    wait_until(lambda: ask("ready", path) == OK, 20, lambda: pool.output)
    job = queue.enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: pool.output)
    pool.signal()
    wait_until(lambda: ask("ready", path) == (False, "stopping"))
    assert 0 < status(path)["seconds_left"] <= 31
    assert ask("live", path) == OK
    connection.rpush("go", 1)
    assert pool.wait() == 0, pool.output
    assert not os.path.exists(path)


def test_a_quiet_pool(connection: redis.Redis, queue: Queue, start_worker: StartWorker, path: str) -> None:
    """It is not ready, and who comes later is quiet too: a successor, after new code, one more; until they are told."""
    options = ["--workers", "2", "--probe-socket", path]
    pool = start_worker(options=options, settings=LONG, name="pool", wait=False)

    def states() -> list[str]:
        return [each["state"] for each in status(path)["workers"]]

    wait_until(lambda: ask("ready", path) == OK and states() == ["up", "up"], 20, lambda: pool.output)
    pool.signal(signal.SIGTSTP)
    wait_until(lambda: ask("ready", path) == (False, "quiet"), 10, lambda: pool.output)
    before = [each["pid"] for each in status(path)["workers"]]
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: pool.output.count("started with PID") == 3, 15, lambda: pool.output)
    wait_until(lambda: states() == ["quiet", "quiet"], 15, lambda: pool.output)
    pool.signal(signal.SIGHUP)
    pool.wait_output("workers are replaced one after the other", 20)
    wait_until(
        lambda: (
            ask("ready", path)[1] == "quiet"
            and states() == ["quiet", "quiet"]
            and not set(before) & {each["pid"] for each in status(path)["workers"]}
        ),
        20,
        lambda: pool.output,
    )
    pool.signal(signal.SIGTTIN)
    wait_until(lambda: states() == ["quiet"] * 3, 15, lambda: pool.output)
    job = queue.enqueue(jobs.quick)
    send_command(connection, "pool.3", "resume")
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: pool.output)
    assert states() == ["quiet", "quiet", "up"]
    assert ask("ready", path) == OK
    pool.signal()
    assert pool.wait() == 0, pool.output
