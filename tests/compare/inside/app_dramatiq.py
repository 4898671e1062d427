"""Dramatiq on Redis, with its default middleware."""

from __future__ import annotations

import os

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, ShutdownNotifications

URL = os.environ["COMPARE_BROKER"]


class Hook(Middleware):
    def after_worker_shutdown(self, broker: object, worker: object) -> None:
        work.hook()


broker = RedisBroker(url=URL)
if not any(isinstance(each, ShutdownNotifications) for each in broker.middleware):
    broker.add_middleware(ShutdownNotifications())
broker.add_middleware(Hook())
dramatiq.set_broker(broker)


@dramatiq.actor
def run(job: str, seconds: float, endless: bool) -> None:
    work.run(job, seconds, endless)


@dramatiq.actor(notify_shutdown=True)
def run_long(job: str, seconds: float, endless: bool) -> None:
    """The documented way for an actor that may take longer than the grace period."""
    work.run(job, seconds, endless)


def enqueue(job: str, seconds: float, endless: bool) -> None:
    (run_long if endless else run).send(job, seconds, endless)


def state(job: str) -> str:
    client = redis.Redis.from_url(URL)
    needle = b'"' + job.encode() + b'"'
    for suffix, words in ((".XQ", "failed"), (".DQ", "queued"), ("", "queued")):
        for identifier, message in client.hgetall(f"dramatiq:default{suffix}.msgs").items():
            if needle in message:
                listed = identifier in client.lrange(f"dramatiq:default{suffix}", 0, -1)
                return words if listed or words == "failed" else "held"
    return "gone"
