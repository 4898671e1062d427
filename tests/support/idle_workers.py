"""Idle workers as threads: they wait for jobs and fetch them as real ones do."""

from __future__ import annotations

import threading

import redis

from graceful.worker.compat.redis_connection import OwnConnection
from graceful.worker.queue.fetch import Fetcher
from graceful.worker.queue.wait import QueueWatch
from graceful.worker.shutdown.os_signals import Inbox
from tests.support.server import Server

KEYS = [f"q{number}" for number in range(3)]


class Watch(QueueWatch):
    """A watch with its connection."""

    def __init__(self, client: redis.Redis, inbox: Inbox, worker_id: str) -> None:
        self.own = OwnConnection(client)
        super().__init__(self.own, inbox, worker_id)

    def close(self) -> None:
        self.leave()
        self.own.disconnect()


class IdleWorker:
    """A worker in a thread, that waits and fetches as a real one, and notes what it got and how often it was woken."""

    def __init__(self, server: Server, number: int, keys: list[str] = KEYS[:1]) -> None:
        self.keys = keys
        self.worker_id = f"worker-id-{number}"
        self.client = server.client()
        self.taken: list[str] = []
        self.woken = 0
        self.waiting = threading.Event()
        self._stop = False
        self._inbox = Inbox()
        self.watch = Watch(self.client, self._inbox, self.worker_id)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        fetcher = Fetcher(self.client, self.worker_id)
        pairs = [(key, f"{key}:intermediate") for key in self.keys]
        while not self._stop:
            try:
                fetched = fetcher.fetch(pairs)
                if fetched is not None:
                    self.waiting.clear()
                    self.watch.leave()
                    self.taken.append(fetched.job_id)
                    continue
                while not self.watch.wait(self.keys, 0.2):
                    self.waiting.set()
                self.woken += 1
            except redis.exceptions.RedisError:
                continue

    def stop(self) -> None:
        self._stop = True
        if not self._thread.is_alive():
            return
        self._inbox.record_command("shutdown")
        self._thread.join()
        self.watch.close()
        self._inbox.close()
