"""What is due is enqueued once: whoever runs beside, and whatever came before."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from redis.client import Pipeline
from rq import Queue

from graceful.worker.compat import rq_cron
from graceful.worker.cron import CRON_KEY, GracefulCronScheduler
from tests.support import jobs


@pytest.fixture
def scheduler(connection: redis.Redis) -> GracefulCronScheduler:
    return GracefulCronScheduler(connection)


def hourly(connection: redis.Redis, **options: Any) -> GracefulCronScheduler:
    """A scheduler, as of a process of its own, with one job."""
    found = GracefulCronScheduler(connection)
    found.register(jobs.quick, "default", (1,), **(options or {"interval": 3600}))
    return found


def set_back(connection: redis.Redis, seconds: float) -> None:
    """As if what was written down had been written so long ago."""
    for identity, at in connection.hgetall(CRON_KEY).items():  # type: ignore[union-attr]
        connection.hset(CRON_KEY, identity, float(at) - seconds)


def test_a_restart_enqueues_nothing_again(connection: redis.Redis, queue: Queue) -> None:
    """An interval counts on over a restart; RQ's own scheduler would enqueue the job at each start."""
    assert len(hourly(connection).enqueue_jobs()) == 1
    assert hourly(connection).enqueue_jobs() == []
    assert len(queue.job_ids) == 1


@pytest.mark.parametrize("options", [{"interval": 3600}, {"cron": "0 * * * *"}], ids=["interval", "cron"])
def test_what_came_due_meanwhile_is_enqueued_once(
    options: dict[str, Any], connection: redis.Redis, queue: Queue
) -> None:
    """Ticks that came while no scheduler ran are made up for by one job."""
    hourly(connection, **options).enqueue_jobs()
    before = len(queue.job_ids)
    set_back(connection, 5 * 3600)
    again = hourly(connection, **options)
    assert len(again.enqueue_jobs()) == 1
    assert again.enqueue_jobs() == []
    assert len(queue.job_ids) == before + 1


def test_of_two_one_enqueues(connection: redis.Redis, queue: Queue) -> None:
    """Two schedulers of the same jobs, as in a rolling deploy, enqueue each tick once."""
    old, new = hourly(connection), hourly(connection)
    assert [len(each.enqueue_jobs()) for each in (old, new)] == [1, 0]
    set_back(connection, 3600)
    for job in (*old.get_jobs(), *new.get_jobs()):
        past = datetime.now(UTC) - timedelta(hours=1)
        rq_cron.set_enqueued(job, past)
    assert [len(each.enqueue_jobs()) for each in (new, old)] == [1, 0]
    assert len(queue.job_ids) == 2


def test_at_the_same_instant(connection: redis.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that is overtaken between its look and its transaction enqueues nothing."""
    slow, quick = hourly(connection), hourly(connection)
    multi = Pipeline.multi

    def overtaken(self: Pipeline) -> None:
        monkeypatch.setattr(Pipeline, "multi", multi)
        assert len(quick.enqueue_jobs()) == 1
        multi(self)

    monkeypatch.setattr(Pipeline, "multi", overtaken)
    assert slow.enqueue_jobs() == []
    assert len(queue.job_ids) == 1


def test_a_reply_that_is_lost(connection: redis.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Redis has done it and cannot say so, the job is not enqueued again."""
    scheduler, execute = hourly(connection), Pipeline.execute

    def lost(self: Pipeline, *args: Any, **kwargs: Any) -> Any:
        execute(self, *args, **kwargs)
        monkeypatch.setattr(Pipeline, "execute", execute)
        raise redis.exceptions.ConnectionError("the reply is lost")

    monkeypatch.setattr(Pipeline, "execute", lost)
    with pytest.raises(redis.exceptions.ConnectionError):
        scheduler.enqueue_jobs()
    assert scheduler.enqueue_jobs() == []
    assert len(queue.job_ids) == 1


def test_what_fails_stays_due(connection: redis.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Redis has not done it, the job is enqueued by the next try."""
    scheduler, execute = hourly(connection), Pipeline.execute

    def refused(self: Pipeline, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Pipeline, "execute", execute)
        raise redis.exceptions.ConnectionError("not sent")

    monkeypatch.setattr(Pipeline, "execute", refused)
    with pytest.raises(redis.exceptions.ConnectionError):
        scheduler.enqueue_jobs()
    assert len(scheduler.enqueue_jobs()) == 1
    assert len(queue.job_ids) == 1


@pytest.mark.parametrize("text", ["nonsense", "inf", "-inf", "nan", "99999999999999", ""])
def test_what_is_written_down_is_nonsense(text: str, connection: redis.Redis, queue: Queue) -> None:
    """A time that is none, or lies far in the future, counts as if there were none."""
    hourly(connection).enqueue_jobs()
    (identity,) = connection.hkeys(CRON_KEY)  # type: ignore[misc]
    connection.hset(CRON_KEY, identity, text)
    assert len(hourly(connection).enqueue_jobs()) == 1
    assert float(connection.hget(CRON_KEY, identity)) == pytest.approx(time.time(), abs=60)  # type: ignore[arg-type]


def test_a_foreign_value_under_its_key(connection: redis.Redis, queue: Queue) -> None:
    """What another client wrote there is set aside."""
    connection.set(CRON_KEY, "text")
    assert len(hourly(connection).enqueue_jobs()) == 1


def test_jobs_that_are_alike(connection: redis.Redis, queue: Queue) -> None:
    """Two registrations of one function are two jobs; one with another interval is a new one."""
    scheduler = hourly(connection)
    scheduler.register(jobs.quick, "default", (1,), interval=3600)
    assert len(scheduler.enqueue_jobs()) == 2
    assert scheduler.enqueue_jobs() == []
    assert len(hourly(connection, interval=60).enqueue_jobs()) == 1
    assert len(queue.job_ids) == 3
