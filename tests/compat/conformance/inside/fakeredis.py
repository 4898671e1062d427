"""A real client, where django-tasks-rq's tests take one that has no server."""

from redis import Redis as FakeRedis
from redis import Redis as FakeStrictRedis

__all__ = ["FakeRedis", "FakeStrictRedis"]
