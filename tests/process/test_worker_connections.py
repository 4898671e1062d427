"""Every way of connecting to Redis, and how quickly a job is picked up over it."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.job_accounting import balance
from tests.support.processes import WorkerProcess
from tests.support.proxy import Proxy, certificate, tls_context
from tests.support.reports import report_of
from tests.support.server import Server, server_binary
from tests.support.waiting import let_pass, wait_until

CLASSES = ["rq.Worker", "rq.worker.SpawnWorker"]
Setup = Callable[[ExitStack, Path], tuple[Server, dict[str, Any]]]


def plain(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server())
    return server, {"HOST": "127.0.0.1", "PORT": server.port, "DB": 3}


def password(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server({"requirepass": "secret-word"}, password="secret-word"))
    return server, {"HOST": "127.0.0.1", "PORT": server.port, "DB": 0, "PASSWORD": "secret-word"}


def unix_socket(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server(unix_socket=True))
    return server, {"UNIX_SOCKET_PATH": str(server.socket), "DB": 0}


def tls(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server())
    cert, key = certificate(directory)
    proxy = stack.enter_context(Proxy(server.port, tls_context(cert, key)))
    return server, {"URL": f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={cert}"}


def limited_user(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    """No administration but what RQ asks for, so no CLIENT UNBLOCK, and no keys but those of RQ and ours."""
    server = stack.enter_context(Server())
    with server.client() as client:
        client.acl_setuser(
            "limited",
            enabled=True,
            passwords=["+x"],
            commands=["+@all", "-@admin", "-@dangerous", "-client", "+client|setname", "+client|list", "+info"],
            keys=["rq:*", "graceful:*", "tests:*"],
            reset_channels=True,  # Redis 6.2 gives a new user all of them.
            channels=["rq:*"],
        )
    return server, {"URL": f"redis://limited:x@127.0.0.1:{server.port}/0"}


def sentinel(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / "sentinel.conf"
    monitored = f"sentinel monitor mine 127.0.0.1 {server.port} 1"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {directory}\n{monitored}\n")
    process = subprocess.Popen(
        [server_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    watcher = redis.sentinel.Sentinel([("127.0.0.1", port)])

    def known() -> bool:
        try:
            return bool(watcher.discover_master("mine"))
        except redis.exceptions.RedisError:
            return False

    wait_until(known, 15, "the sentinel knows its master")
    return server, {"SENTINELS": [["127.0.0.1", port]], "MASTER_NAME": "mine", "DB": 0}


def few_connections(stack: ExitStack, directory: Path) -> tuple[Server, dict[str, Any]]:
    server = stack.enter_context(Server())
    # django-rq does not heed REDIS_CLIENT_KWARGS beside a URL.
    options = {"REDIS_CLIENT_KWARGS": {"max_connections": 4}}
    return server, {"HOST": "127.0.0.1", "PORT": server.port, "DB": 0, **options}


@pytest.mark.parametrize("setup", [plain, password, unix_socket, tls, limited_user, sentinel, few_connections])
def test_a_worker_over_every_kind_of_connection(setup: Setup, start_worker: StartWorker, tmp_path: Path) -> None:
    """A worker runs and shuts down over every kind of connection."""
    with ExitStack() as stack:
        server, config = setup(stack, tmp_path)
        client = stack.enter_context(redis.Redis.from_url(server.url.replace("/0", f"/{config.get('DB', 0)}")))
        queues = [Queue(name, connection=client) for name in ("default", "high")]
        for worker_class in CLASSES:
            worker = start_worker_on(start_worker, server, client, config, worker_class)
            wait_until(lambda worker=worker: worker.state == "idle", 20, lambda worker=worker: worker.output)  # type: ignore[misc]
            # Starting an interpreter for each takes its time: there one has to do.
            chosen = queues if worker_class == "rq.Worker" else queues[:1]
            done = [queue.enqueue(jobs.quick, number) for number, queue in enumerate(chosen)]
            wait_until(
                lambda done=done: all(job.get_status(refresh=True) == "finished" for job in done),  # type: ignore[misc]
                20,
                lambda worker=worker: worker.output,  # type: ignore[misc]
            )
            began = time.monotonic()
            worker.signal()
            assert worker.wait(10) == 0, worker.output
            assert time.monotonic() - began < 2.0, worker.output
            assert report_of(client, worker).outcome == "clean"
            assert "secret-word" not in worker.output
            assert client.smembers("rq:workers") == set()


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_credential_provider(worker_class: str, start_worker: StartWorker) -> None:
    """A job runs, and its worker stops, where the password comes from a provider that cannot be pickled."""
    with Server({"requirepass": "secret-word"}, password="secret-word") as server, server.client() as client:
        worker = start_worker(
            options=["--worker-class", worker_class],
            environment={
                "DJANGO_SETTINGS_MODULE": "tests.support.settings_with_provider",
                "TEST_REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
                "TEST_PASSWORD": "secret-word",
            },
            server=server,
        )
        job = Queue("default", connection=client).enqueue(jobs.quick, 7)
        wait_until(lambda: job.get_status(refresh=True) == "finished", 20, lambda: worker.output)
        worker.signal()
        assert worker.wait(10) == 0, worker.output
        assert "secret-word" not in worker.output


def start_worker_on(
    start_worker: StartWorker, server: Server, client: redis.Redis, config: dict[str, Any], worker_class: str
) -> WorkerProcess:
    settings = {"RQ_QUEUES": {name: {"DEFAULT_TIMEOUT": 60, **config} for name in ("default", "high")}}
    options = ["--worker-class", worker_class]
    worker = start_worker(("high", "default"), options, settings=settings, server=server, wait=False)
    worker.connection = client
    return worker


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    with Proxy(valkey.port) as proxy:
        yield proxy


def went_on(worker: WorkerProcess, queue: Queue, before: int) -> bool:
    """Whether a job was taken since there were ``before`` in the queue, or none can be any more."""
    return before == 0 or queue.count < before or not worker.running


def test_a_worker_whose_connections_are_cut(
    proxy: Proxy, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Connections cut at random lose no job."""
    settings = {"RQ_QUEUES": {"default": {"URL": f"redis://127.0.0.1:{proxy.port}/0", "DEFAULT_TIMEOUT": 60}}}
    ids = [queue.enqueue(jobs.quick).id for _ in range(60)]
    worker = start_worker(settings=settings)
    for _ in range(15):
        if not worker.running:
            # Cut again and again it may give up in the end, and its reaper has to go on.
            assert worker.wait() == os.EX_UNAVAILABLE, worker.output
            worker = start_worker(settings=settings)
        before = queue.count
        proxy.cut()
        wait_until(partial(went_on, worker, queue, before), 20, lambda worker=worker: worker.output)  # type: ignore[misc]
    worker.signal()
    assert worker.wait(20) in (0, os.EX_UNAVAILABLE), worker.output
    last = start_worker(options=["--burst"], wait=False)
    assert last.wait(60) == 0, last.output
    books = balance(connection, ids)
    # An execution whose making had no reply may come to light after its job was requeued without it: it stays in the
    # started registry beside the end of the job, until it expires. No job is lost or run for it.
    for job_id, places in books.places.items():
        if "finished:default" in places:
            books.places[job_id] = tuple(place for place in places if place != "started:default")
    books.assert_balanced()
    # A horse that was cut off while it stored its result fails the job, as with RQ's own worker.
    assert len(books.at("finished")) + len(books.at("failed")) == len(ids)
    assert len(books.at("failed")) <= 5, books.summary()


def test_order_of_queues(connection: redis.Redis, queues: dict[str, Queue], start_worker: StartWorker) -> None:
    """Queues are served in the order given."""
    order = []
    for name in ("low", "default", "high"):
        order += [(name, queues[name].enqueue(jobs.quick).id) for _ in range(3)]
    ids = {name: [job_id for each, job_id in order if each == name] for name in queues}

    def run(*options: str) -> list[str]:
        worker = start_worker(("high", "default", "low"), ["--burst", *options], wait=False)
        assert worker.wait() == 0, worker.output
        places = {job_id: worker.output.index(job_id) for each in ids.values() for job_id in each}
        return sorted(places, key=lambda job_id: places[job_id])

    assert run() == ids["high"] + ids["default"] + ids["low"]

    def again() -> None:
        for name, queue in queues.items():
            ids[name] = [queue.enqueue(jobs.quick).id for _ in range(3)]

    again()
    mixed = [job_id for each in zip(ids["high"], ids["default"], ids["low"], strict=True) for job_id in each]
    assert run("--worker-class", "rq.worker.RoundRobinWorker") == mixed
    again()
    done = run("--worker-class", "rq.worker.RandomWorker")
    for each in ids.values():
        assert [job_id for job_id in done if job_id in each] == each, "within a queue the order stays"


def test_a_job_is_picked_up_at_once(
    connection: redis.Redis, queues: dict[str, Queue], start_worker: StartWorker
) -> None:
    """An idle worker picks up a job at once."""
    worker = start_worker(("high", "default", "low"), ["--worker-class", "rq.SimpleWorker"])
    seconds = []
    for number in range(15):
        worker.wait_state("idle")
        began = time.monotonic()
        job = list(queues.values())[number % 3].enqueue(jobs.quick)
        wait_until(lambda job=job: connection.hexists(jobs.FINISHED, job.id), 5, interval=0.001)  # type: ignore[misc]
        seconds.append(time.monotonic() - began)
    assert statistics.median(seconds) < 0.08, seconds
    worker.signal()
    assert worker.wait(5) == 0


def test_more_queues_than_are_watched(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A worker serves any number of queues."""
    names = [f"many-{number}" for number in range(20)]
    url = f"redis://127.0.0.1:{connection.connection_pool.connection_kwargs['port']}/0"
    settings = {"RQ_QUEUES": {name: {"URL": url, "DEFAULT_TIMEOUT": 60} for name in (*names, "default")}}
    worker = start_worker(names, settings=settings)
    for name in (names[0], names[-1], names[10]):
        job = Queue(name, connection=connection).enqueue(jobs.quick)
        wait_until(lambda job=job: job.get_status(refresh=True) == "finished", 5, lambda: worker.output)  # type: ignore[misc]
    worker.signal()
    assert worker.wait(5) == 0


def test_many_idle_workers(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """Of many idle workers one takes the job, and the others stay idle."""
    workers = [start_worker(wait=False) for _ in range(6)]
    for worker in workers:
        worker.wait_started()
    ids = [queue.enqueue(jobs.quick).id for _ in range(30)]
    wait_until(lambda: all(connection.hexists(jobs.FINISHED, job_id) for job_id in ids), 20)
    for worker in workers:
        worker.wait_state("idle")

    def commands_of_a_second() -> int:
        before = connection.info("stats")["total_commands_processed"]
        let_pass(1.0, "what idle workers ask in a second is counted")
        return int(connection.info("stats")["total_commands_processed"]) - before

    # The first second may still have what follows a job: heartbeats, and a look after others.
    wait_until(lambda: commands_of_a_second() < 40, description="idle workers are idle")
    for worker in workers:
        worker.signal()
    assert [worker.wait(10) for worker in workers] == [0] * 6
    books = balance(connection, ids)
    books.assert_balanced()
    assert books.run_twice == []
