"""What the clients of a server say to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis

from tests.support.server import Server
from tests.support.waiting import wait_until


class Traffic:
    """The commands that a server was sent, in their order; not those that scripts call within it.

    A reply is awaited once for each of them, unless several are sent together.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._seen: list[str] = []

    def listen(self, monitor: redis.client.Monitor) -> None:
        """Take down what the server shows, until the connection is closed."""
        try:
            for entry in monitor.listen():
                if entry["client_type"] != "lua":
                    self._seen.append(entry["command"])
        except (redis.exceptions.RedisError, OSError, ValueError):
            pass

    def commands(self) -> list[str]:
        """All commands up to now."""
        mark = uuid4().hex
        self._client.echo(mark)
        wait_until(lambda: any(mark in command for command in self._seen), 10)
        return [command for command in list(self._seen) if not command.startswith("ECHO")]


@contextmanager
def traffic(server: Server) -> Iterator[Traffic]:
    """Listen to a server (``MONITOR``)."""
    with redis.Redis.from_url(server.url) as client, client.monitor() as monitor:
        found = Traffic(server.client())
        thread = threading.Thread(target=found.listen, args=(monitor,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            monitor.connection.disconnect()
            thread.join(5)
