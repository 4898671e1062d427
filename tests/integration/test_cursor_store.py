"""Where a job's cursors are kept: in the job's hash, on a real server."""

from __future__ import annotations

import redis
from rq import Queue

from graceful.jobs import progress
from graceful.resume.cursors import FIELD, Cursors
from graceful.worker.horse.cursor_store import CursorStore
from tests.support import jobs
from tests.support.server import Server

SAVED = '{"version": 1, "loops": {}, "states": {"default": 3}}'


def test_cursors_outlive_a_saving_of_the_job_by_rq(connection: redis.Redis, queue: Queue) -> None:
    """Cursors survive ``Job.save``."""
    job = queue.enqueue(jobs.quick)
    store = CursorStore(connection, job.key)
    assert store.load() is None
    assert store.save(SAVED)
    job.meta["a"] = 1
    job.save()
    job.save_meta()
    assert CursorStore(connection, job.key).load() == SAVED
    store.clear()
    assert store.load() is None
    assert not connection.hexists(job.key, FIELD)


def test_a_deleted_job_stays_deleted(connection: redis.Redis, queue: Queue) -> None:
    """Saving cursors does not recreate a deleted job."""
    job = queue.enqueue(jobs.quick)
    job.delete()
    assert CursorStore(connection, job.key).save(SAVED)
    assert not connection.exists(job.key)


def test_a_server_that_is_away_is_tried_again_later(own_valkey: Server) -> None:
    """With an unreachable server saving returns False and is retried later."""
    client = own_valkey.client(socket_timeout=0.2, retry=None)
    client.hset("rq:job:a", "status", "started")
    cursors = Cursors(CursorStore(client, "rq:job:a"))
    cursors.set_state("default", 3)
    own_valkey.pause()
    cursors.save()
    own_valkey.resume()
    cursors.save()
    assert Cursors(CursorStore(client, "rq:job:a")).state("default", None) == 3


def test_progress_of_a_job_without_any(connection: redis.Redis, queue: Queue) -> None:
    """Progress of a job without cursors, or with unreadable ones, is empty."""
    job = queue.enqueue(jobs.quick)
    assert progress(job) == ()
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1, "loops": {"a": 3}, "states": {}}', b"\xff"):
        connection.hset(job.key, FIELD, text)
        assert progress(job) == ()
