"""Jobs of the worker's tests that do something in particular."""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, connections
from rq import Retry
from rq.job import Job

from graceful.jobs import on_interrupt, shutdown_requested, time_left, uninterruptible
from tests.support.jobs import CALLED, current_job, note_end, note_start, stubborn

try:
    from django.tasks import task
except ImportError:  # Before Django 6: an object of the same shape.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class _Task:
        func: Callable[..., Any]

        def call(self, *args: Any, **kwargs: Any) -> Any:
            return self.func(*args, **kwargs)

    def task(func: Callable[..., Any]) -> Any:
        """What ``django.tasks.task`` does with a function."""
        return _Task(func=func)


def idles(seconds: float) -> None:
    """Sleeps in many short calls, and does not speak to Redis after its first line."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def ends_a_program() -> int:
    """Starts a program and ends it; returns its exit code."""
    program = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
    assert program.stdout
    program.stdout.readline()
    program.terminate()
    code = program.wait(10)
    program.stdout.close()
    return code


def _sleeps(started: Any) -> None:
    started.set()
    time.sleep(60)


def ends_a_process() -> int | None:
    """Forks a process with multiprocessing and ends it; returns its exit code."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_sleeps, args=(started,))
    process.start()
    assert started.wait(10)
    process.terminate()
    process.join(10)
    return process.exitcode


def _wait_in_thread(there: threading.Event, over: threading.Event) -> None:
    there.set()
    over.wait(30)


def waits_in_two_threads(key: str) -> None:
    """Waits until somebody pushes to the list ``key``, with a second thread that waits as well."""
    there, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=_wait_in_thread, args=(there, over))
    thread.start()
    there.wait()
    note_start()
    current_job().connection.blpop(key, 30)
    over.set()
    thread.join()
    note_end()


def hangs_with_the_gil() -> None:
    """Waits in C for a lock that it holds itself, and does not let go of the GIL: no Python runs here any more."""
    note_start()
    _hold_the_gil()


def _hold_the_gil() -> None:
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(mutex, None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def waits_in_c(seconds: float) -> str:
    """Waits in C for a lock that it holds itself, without the GIL; as a long query, it takes no notice of signals."""
    note_start()
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(mutex, None)
    libc.pthread_mutex_lock(mutex)
    until = time.time() + seconds
    libc.pthread_mutex_timedlock(mutex, struct.pack("ll", int(until), int(until % 1 * 1_000_000_000)))
    time.sleep(0.3)
    note_end()
    return "waited"


def stubborn_with_a_child(seconds: float) -> None:
    """As ``jobs.stubborn``; ``multiprocessing`` waits for its child when the process exits."""
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(seconds,)).start()
    stubborn(seconds)


def fails_after_success(job: Job, connection: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """A success callback that makes a failure of it.

    Raises:
        ValueError: always.
    """
    raise ValueError("on purpose")


def failed_slowly(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A failure callback that takes a while; the supervisor has patience for it."""
    connection.rpush(CALLED, f"failure:{job.id}")
    time.sleep(1.5)


def failed_and_sleeps(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A failure callback that takes too long."""
    connection.rpush(CALLED, f"failure:{job.id}")
    time.sleep(60)


def failed_and_hangs(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A failure callback that lets no Python run any more."""
    _hold_the_gil()


def closes_all_descriptors(seconds: float) -> None:
    """Closes everything that its process has open, as a daemon's start does, and goes on."""
    note_start()
    os.closerange(3, 1024)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def takes_signals() -> None:
    """Handles SIGTERM in an event loop while it runs; asyncio leaves the default handler and no wakeup descriptor."""
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def ignores_its_children() -> None:
    """Leaves SIGCHLD ignored: the kernel forgets children as they end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def database_connections() -> dict[str, Any]:
    """What the job finds of database connections that its worker had: none that is open."""
    open_before = [each.alias for each in connections.all(initialized_only=True) if each.connection is not None]
    targets = []
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else []:
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        (one,) = cursor.fetchone()
    return {"open": open_before, "files": [each for each in targets if "sqlite3" in each], "one": one}


def with_children(directory: str) -> list[int]:
    """Starts children in every way, each of which ends in its own; returns their pids."""
    pids = []
    for end in (lambda: os._exit(0), lambda: sys.exit(0)):
        pid = os.fork()
        if pid == 0:
            end()
        os.waitpid(pid, 0)
        pids.append(pid)
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=time.sleep, args=(0.01,))
        process.start()
        process.join(20)
        pids.append(process.pid or 0)
    return pids


def asks_for_a_retry() -> Retry | str:
    """Returns a Retry at its first run."""
    job = current_job()
    if job.connection.incr(f"tests:asked:{job.id}") == 1:
        return Retry(max=3)
    return "done"


def fails_at_first(times: int) -> str:
    """Fails so many times, then succeeds.

    Raises:
        ValueError: at first.
    """
    job = current_job()
    if job.connection.incr(f"tests:tried:{job.id}") <= times:
        raise ValueError("not yet")
    return "done"


def slow_success(job: Job, connection: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """A success callback that takes longer than the grace period leaves to a job."""
    time.sleep(1.0)
    connection.rpush("tests:called", f"slow success:{job.id}")


def ends_at_a_shutdown() -> str:
    """Goes on until its worker is to stop, then comes to its own good end; tells how much time it had."""
    assert time_left() is None
    note_start()
    while not shutdown_requested():
        time.sleep(0.01)
    left = time_left()
    note_end()
    return f"{left:.1f}"


def pays() -> str:
    """Is in an uninterruptible block when the interruption comes."""
    note_start()
    with uninterruptible():
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            time.sleep(0.01)
        current_job().connection.rpush("tests:paid", current_job().id)
    # Here it is interrupted.
    time.sleep(30)
    return "never"


@on_interrupt("fail")
def must_not_be_repeated(seconds: float) -> None:
    """Says itself that it is to fail when it is interrupted."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


class TaskJob(Job):
    """Runs a Django Task, as the job class of django-tasks-rq does: the job's function is the Task."""

    def _execute(self) -> Any:
        task: Any = self.func
        return task.call(*self.args, **self.kwargs)


@task
@on_interrupt("fail")
def pays_once(seconds: float) -> None:
    """A Task that says so below its decorator."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@on_interrupt("fail")
@task
def pays_once_too(seconds: float) -> None:
    """A Task that says so above it."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@on_interrupt("requeue")
def may_be_repeated(seconds: float) -> None:
    """Says itself that it is to be put back when it is interrupted."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def cleans_up(seconds: float) -> None:
    """Leaves a mark in its ``finally`` block."""
    note_start()
    try:
        time.sleep(seconds)
    finally:
        current_job().connection.rpush("tests:cleaned", current_job().id)


def crashes() -> None:
    """Crashes its process in C code."""
    note_start()
    ctypes.string_at(0)


def environment_of_a_child(*names: str) -> list[str | None]:
    """These variables as the job has them, then as a program has them that it starts."""
    code = f"import os, json; print(json.dumps([os.environ.get(name) for name in {names!r}]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [*(os.environ.get(name) for name in names), *json.loads(run.stdout)]


def listening_sockets() -> list[str]:
    """The addresses on which the job's process listens."""
    found = []
    for descriptor in range(3, 200):
        try:
            candidate = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue  # Not open, or no socket.
        with candidate:
            if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(str(candidate.getsockname()))
    return found
