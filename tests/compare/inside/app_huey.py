"""huey on Redis."""

from __future__ import annotations

import os
import pickle

import redis
import work
from huey import RedisHuey

URL = os.environ["COMPARE_BROKER"]
huey = RedisHuey("compare", url=URL)


@huey.task()
def run(job: str, seconds: float, endless: bool) -> None:
    work.run(job, seconds, endless)


@huey.on_shutdown()
def at_shutdown() -> None:
    work.hook()


def enqueue(job: str, seconds: float, endless: bool) -> None:
    run(job, seconds, endless)


def state(job: str) -> str:
    messages = redis.Redis.from_url(URL).lrange("huey.redis.compare", 0, -1)
    return "queued" if any(job in pickle.loads(message).args for message in messages) else "gone"
