"""The graceful worker classes, and how any RQ worker class becomes one."""

from __future__ import annotations

from typing import Any

from rq.worker import BaseWorker, SimpleWorker, SpawnWorker, Worker

from graceful.exceptions import UnsupportedWorkerClass
from graceful.worker.horse.simple_worker import SimpleMixin
from graceful.worker.horse.spawn import SpawnMixin
from graceful.worker.work import GracefulLoop
from graceful.worker.worker import GracefulMixin


class GracefulWorker(GracefulMixin, Worker, GracefulLoop):
    """RQ's ``Worker``: a forked horse for each job."""


class GracefulSimpleWorker(SimpleMixin, SimpleWorker, GracefulLoop):
    """RQ's ``SimpleWorker``: jobs run in the worker's own process."""


class GracefulSpawnWorker(SpawnMixin, SpawnWorker, GracefulLoop):
    """RQ's ``SpawnWorker``: a newly started interpreter for each job."""


def make_graceful(worker_class: Any) -> type[GracefulMixin]:
    """The graceful form of an RQ worker class.

    Args:
        worker_class: a class derived from ``rq.worker.BaseWorker``.

    Returns:
        the class itself if it is graceful already, one of ours for RQ's own three, else a new class over it.

    Raises:
        UnsupportedWorkerClass: it is no RQ worker class, or cannot be derived from.
    """
    if not isinstance(worker_class, type) or not issubclass(worker_class, BaseWorker):
        raise UnsupportedWorkerClass(
            f"The worker class must be derived from rq.worker.BaseWorker, got: {worker_class!r}"
        )
    if issubclass(worker_class, GracefulMixin):
        return worker_class
    ours: dict[type, type[GracefulMixin]] = {
        Worker: GracefulWorker,
        SimpleWorker: GracefulSimpleWorker,
        SpawnWorker: GracefulSpawnWorker,
    }
    if worker_class in ours:
        return ours[worker_class]
    mixin: type[GracefulMixin] = GracefulMixin
    if issubclass(worker_class, SpawnWorker):
        mixin = SpawnMixin
    elif issubclass(worker_class, SimpleWorker):
        mixin = SimpleMixin
    elif not issubclass(worker_class, Worker):
        raise UnsupportedWorkerClass(
            f"The worker class must be derived from rq's Worker, SimpleWorker or SpawnWorker, got: {worker_class!r}"
        )
    try:
        return type(
            f"Graceful{worker_class.__name__}", (mixin, worker_class, GracefulLoop), {"graceful_over": worker_class}
        )
    except TypeError as error:
        raise UnsupportedWorkerClass(f"{worker_class!r} cannot be made graceful: {error}") from error
