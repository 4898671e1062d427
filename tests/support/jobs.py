"""Jobs that tests enqueue. Each counts its starts and ends in Redis, so that a book of them can be balanced."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from rq import get_current_job
from rq.job import Job

STARTED = "tests:started"
"""Hash: job id to how often it was started."""
FINISHED = "tests:finished"
"""Hash: job id to how often it came to its end."""
RUNNING = "tests:running"
"""Hash: job id to how many of it run at this moment."""
OVERLAPPED = "tests:overlapped"
"""Set of the ids of jobs that ran twice at once."""
CALLED = "tests:called"
"""List of the callbacks that ran, as ``kind:job id``."""
PIDS = "tests:pids"
"""Hash: job id to the pid of its last horse."""


def current_job() -> Job:
    """The job that this code runs in."""
    job = get_current_job()
    assert job is not None, "only to be called within a job"
    return job


def note_start() -> None:
    """Count a start of the current job, and see whether it runs twice at once."""
    job = current_job()
    connection = job.connection
    connection.hincrby(STARTED, job.id, 1)
    connection.hset(PIDS, job.id, os.getpid())
    if connection.hincrby(RUNNING, job.id, 1) > 1:
        connection.sadd(OVERLAPPED, job.id)


def note_end() -> None:
    """Count that the current job came to its end."""
    job = current_job()
    job.connection.hincrby(RUNNING, job.id, -1)
    job.connection.hincrby(FINISHED, job.id, 1)


def note_stop() -> None:
    """Count that the current job no longer runs, though it did not come to its end."""
    job = current_job()
    job.connection.hincrby(RUNNING, job.id, -1)


def quick(value: Any = None) -> Any:
    """Done at once; returns what it was given."""
    note_start()
    note_end()
    return value


def sleeping(seconds: float) -> float:
    """Sleeps in one blocking call, and returns the seconds."""
    note_start()
    try:
        time.sleep(seconds)
    except BaseException:
        note_stop()
        raise
    note_end()
    return seconds


def once_long() -> str:
    """Takes half a minute the first time that it is started, and is done at once after that."""
    note_start()
    job = current_job()
    if job.connection.hget(STARTED, job.id) == b"1":
        try:
            time.sleep(30)
        except BaseException:
            note_stop()
            raise
    note_end()
    return "done"


def napping(seconds: float, nap: float = 0.01) -> float:
    """Sleeps in many short calls, in each of which an exception may be raised."""
    note_start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(nap)
    except BaseException:
        note_stop()
        raise
    note_end()
    return seconds


def spinning(seconds: float) -> int:
    """Computes, without ever leaving Python."""
    note_start()
    try:
        end = time.monotonic() + seconds
        turns = 0
        while time.monotonic() < end:
            turns += 1
    except BaseException:
        note_stop()
        raise
    note_end()
    return turns


def stubborn(seconds: float) -> None:
    """Swallows whatever is raised in it, and goes on: only SIGKILL ends it before its time."""
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            continue
    note_end()


def until_released(key: str, seconds: float = 30.0) -> None:
    """Runs until somebody pushes to the list ``key``, at most ``seconds``: a job whose end the test decides."""
    note_start()
    try:
        connection = current_job().connection
        end = time.monotonic() + seconds
        while time.monotonic() < end and connection.lpop(key) is None:
            time.sleep(0.01)
    except BaseException:
        note_stop()
        raise
    note_end()


def leaves_a_process() -> None:
    """Starts a program that outlives both the job and the shell that started it."""
    note_start()
    subprocess.run(["/bin/sh", "-c", "sleep 0.1 &"], check=True)
    note_end()


def failing(message: str = "on purpose") -> None:
    """Fails.

    Raises:
        ValueError: always.
    """
    note_start()
    note_stop()
    raise ValueError(message)


def exiting(code: int = 0) -> None:
    """Ends its process in the middle of the job."""
    note_start()
    os._exit(code)


def killing_itself() -> None:
    """Dies as the kernel's memory killer would have it."""
    note_start()
    os.kill(os.getpid(), signal.SIGKILL)


def pid() -> int:
    """The process that the job runs in."""
    note_start()
    note_end()
    return os.getpid()


def ignored_signals() -> list[str]:
    """Names of those of SIGTERM, SIGINT that the job's process ignores."""
    return [each.name for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) is signal.SIG_IGN]


def forking_grandchild(seconds: float) -> int:
    """Leaves a child of its own behind, which sleeps; returns its pid."""
    note_start()
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    note_end()
    return child


def write_model(username: str) -> int:
    """Writes to the database through the ORM, and returns the row's id."""
    from django.contrib.auth import get_user_model

    note_start()
    user = get_user_model().objects.create(username=username)
    note_end()
    return int(user.pk)


def on_success(job: Job, connection: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """A success callback."""
    connection.rpush(CALLED, f"success:{job.id}")


def on_failure(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A failure callback."""
    connection.rpush(CALLED, f"failure:{job.id}")


def on_stopped(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A stopped callback."""
    connection.rpush(CALLED, f"stopped:{job.id}")
