"""A thread in the worker that notes its memory, as metrics exporters and heartbeats do."""

from __future__ import annotations

import resource
import sys
import threading

import graceful
from demo_project.pool import SAMPLES_KEY, samples

INTERVAL_SECONDS = 0.25


class Sampler(threading.Thread):
    """Writes a sample a quarter of a second, until it is told to stop.

    To Redis and not to SQLite: a worker forks for each job, and SQLite's library must not be at work while it does.
    """

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL_SECONDS):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            samples().rpush(SAMPLES_KEY, peak)

    def stop(self) -> None:
        """Ask it to stop; whoever asks joins it."""
        self._stop_asked.set()


def start() -> None:
    """Start the sampler; the built-in exit hook stops and joins it at the worker's end."""
    sampler = Sampler()
    graceful.register_thread(sampler, sampler.stop)
    sampler.start()
