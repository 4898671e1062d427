"""Our backend, with what the tests of other backends ask theirs for."""

from typing import Any

import django_rq

from graceful.tasks import RQBackend


class Backend(RQBackend):
    """Stands where tests have Django's dummy backend, or the one of django-tasks-rq."""

    def __init__(self, alias: str, params: Any) -> None:
        super().__init__(alias, params)
        self.results: list[Any] = []

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """As ours, noted."""
        result = super().enqueue(task, args, kwargs)
        self.results.append(result)
        return result

    def clear(self) -> None:
        """Forget all tasks."""
        self.results.clear()
        django_rq.get_connection().flushall()

    def _get_queues(self) -> Any:
        return [django_rq.get_queue(name) for name in self.queues]
