"""A worker class as a project may already have one: ``--worker-class`` makes it graceful."""

from __future__ import annotations

from typing import Any

from rq import Worker

from demo_project import sampler


class SamplingWorker(Worker):
    """An ordinary RQ worker that starts a thread of its own."""

    def work(self, *args: Any, **options: Any) -> bool:
        sampler.start()
        return super().work(*args, **options)
