"""Exit hooks and RQ classes for worker processes: they write down what they saw, in the file ``TEST_NOTES``."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import redis
from rq import Worker
from rq.job import Job
from rq.worker import BaseWorker

from graceful.core import shutdown
from graceful.core.activity import Activity
from graceful.core.records import Shutdown
from graceful.worker.shutdown import coordinator
from tests.support.processes import pids_in_session


def _note(kind: str, **facts: Any) -> None:
    with Path(os.environ["TEST_NOTES"]).open("a") as file:
        main = threading.current_thread() is threading.main_thread()
        file.write(json.dumps({"kind": kind, "pid": os.getpid(), "main": main, **facts}) + "\n")


def notes(path: Path, kind: str) -> list[dict[str, Any]]:
    """What was written down of one kind."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [note for note in map(json.loads, lines) if note["kind"] == kind]


def exit_note(shutdown: Shutdown) -> str:
    """An exit hook; also tells who else of the worker's session is alive."""
    others = [pid for pid in pids_in_session(os.getsid(0)) if pid != os.getpid()]
    _note(
        "exit",
        others=others,
        reason=shutdown.reason,
        signal=shutdown.signal,
        worker=shutdown.worker,
        queues=shutdown.queues,
        jobs=[[job.id, job.outcome] for job in shutdown.jobs.in_flight],
        left=shutdown.time_left(),
    )
    return "noted"


def horse_note() -> None:
    """A horse exit hook."""
    _note("horse")


def naps() -> str:
    """An exit hook that takes a second."""
    time.sleep(1)
    return "napped"


def swallows_everything() -> None:
    """A hook that takes no notice of its alarm."""
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            continue


def tidies_up() -> None:
    """A hook that is ended by its alarm, and takes a moment to come out of it."""
    try:
        time.sleep(60)
    finally:
        time.sleep(0.05)


def failing() -> None:
    """An exit hook that fails.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("on purpose")


def hanging() -> None:
    """An exit hook that does not end by itself."""
    while True:
        try:
            time.sleep(0.05)
        except Exception:
            continue


class BrokenJob(Job):
    """Cannot be fetched: whoever tries, fails."""

    @classmethod
    def fetch(cls, *args: Any, **kwargs: Any) -> Job:  # type: ignore[override]
        raise RuntimeError("a job class that is broken")


class OnceUnreachableJob(Job):
    """Its first fetch finds the connection cut, just after the job was taken from its queue."""

    fetched = 0

    @classmethod
    def fetch(cls, *args: Any, **kwargs: Any) -> Job:  # type: ignore[override]
        OnceUnreachableJob.fetched += 1
        if OnceUnreachableJob.fetched == 1:
            raise redis.exceptions.ConnectionError("cut")
        return super().fetch(*args, **kwargs)


class OwnWorker(Worker):
    """A user's own worker class."""

    def perform_job(self, *args: Any, **kwargs: Any) -> bool:
        _note("own worker")
        return super().perform_job(*args, **kwargs)


class NoWorker:
    """Not a worker class at all."""


class OtherKind(BaseWorker):
    """Of RQ's base class, but neither forking, spawning nor simple."""


class BrokenLoop(Worker):
    """Fails between two steps of its loop."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        raise RuntimeError("a worker class that is broken")


def slow_step(*args: Any) -> Any:
    """A step of the state machine that takes so long that another thread comes by."""
    found = shutdown.step(*args)
    time.sleep(0.03)
    return found


class AskedTwice(Worker):
    """Loses Redis in the middle of a job and is told to stop at that instant, while other threads look for signals."""

    def monitor_work_horse(self, *args: Any, **kwargs: Any) -> None:
        worker: Any = self
        over = threading.Event()
        coordinator.step = slow_step  # type: ignore[assignment]

        def look() -> None:
            while not over.is_set():
                worker._session.coordinator.attend()

        threads = [threading.Thread(target=look, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(random.uniform(0, 0.01))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(random.choice((0, 0, 0.0001, 0.001)))
            raise redis.exceptions.ConnectionError("cut")
        finally:
            threading.Timer(0.2, over.set).start()


def busy_note(activity: Activity) -> None:
    """A busy or idle hook."""
    _note("activity", busy=activity.busy, worker=activity.worker, queues=activity.queues, left=activity.time_left())


def never_returns(activity: Activity) -> None:
    """A busy or idle hook that takes no notice of its time."""
    busy_note(activity)
    while True:
        time.sleep(0.05)


def fails_at_activity(activity: Activity) -> None:
    """A busy or idle hook that fails.

    Raises:
        RuntimeError: always.
    """
    _note("failing", busy=activity.busy)
    raise RuntimeError("on purpose")


def naps_long() -> str:
    """An exit hook that takes some seconds."""
    time.sleep(4)
    return "napped"


def stands_in_c_code() -> str:
    """An exit hook whose main thread comes to no signal handler for some seconds, without holding the GIL."""
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 5_000_000)
    return "done"
