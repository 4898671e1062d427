"""Jobs of the storms: they take a random time, and see whether they run twice at once, even if they were killed."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from django_rq import get_connection
from rq.job import Job

from tests.support.jobs import OVERLAPPED, STARTED, current_job
from tests.support.processes import is_alive

RUNNER = "tests:runner"
"""Hash: job id to the pid of the process that runs it now."""
DONE = "tests:done"
"""Hash: job id to how often its code came to its end."""
CALLED = "tests:storm-called"
"""Hash: ``kind:job id`` to how often that callback ran."""
EARLY = "tests:early"
"""Set of dependents that ran before what they depend on was done."""
LAST_HOOK = "tests:last-hook"
"""How many workers came to their last exit hook."""
HURRY = "tests:hurry"
"""Set while the jobs that are left over shall end at once."""


def _begin() -> Job:
    job = current_job()
    job.connection.hincrby(STARTED, job.id, 1)
    before = job.connection.hget(RUNNER, job.id)
    job.connection.hset(RUNNER, job.id, os.getpid())
    if before and int(before) != os.getpid() and is_alive(int(before)):
        job.connection.sadd(OVERLAPPED, job.id)
    for parent in job.dependency_ids:
        name = parent.decode() if isinstance(parent, bytes) else parent
        if not job.connection.hexists(DONE, name):
            job.connection.sadd(EARLY, job.id)
    return job


def _end(job: Job) -> None:
    job.connection.hdel(RUNNER, job.id)
    job.connection.hincrby(DONE, job.id, 1)


def short(longest: float) -> None:
    """Takes up to so many seconds, in one sleep."""
    job = _begin()
    time.sleep(random.uniform(0, longest))
    _end(job)


def long(way: str, shortest: float, longest: float) -> str:
    """Takes a random time, in one of the ways in which code can be busy."""
    job = _begin()
    end = time.monotonic() + (0 if job.connection.exists(HURRY) else random.uniform(shortest, longest))
    if way == "sleep":
        time.sleep(max(0.0, end - time.monotonic()))
    while time.monotonic() < end:
        if way == "nap":
            time.sleep(0.005)
        elif way == "stubborn":
            try:
                time.sleep(0.05)
            except BaseException:
                continue
    _end(job)
    return way


def succeeded(job: Job, connection: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """A success callback that takes its time."""
    time.sleep(random.uniform(0, 0.05))
    connection.hincrby(CALLED, f"success:{job.id}", 1)


def failed(job: Job, connection: Any, *args: Any, **kwargs: Any) -> None:
    """A failure callback."""
    connection.hincrby(CALLED, f"failure:{job.id}", 1)


def moody_hook() -> None:
    """An exit hook that is quick, slow, or does not end by itself."""
    mood = random.random()
    if mood < 0.4:
        return
    if mood < 0.7:
        time.sleep(0.15)
        return
    while True:
        try:
            time.sleep(0.05)
        except Exception:
            continue


def last_hook() -> None:
    """Counts that the hooks came to their end."""
    get_connection("default").incr(LAST_HOOK)
