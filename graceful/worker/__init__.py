"""Worker classes that shut down gracefully; usable wherever RQ takes a worker class."""

from __future__ import annotations

from graceful.worker.classes import GracefulSimpleWorker, GracefulSpawnWorker, GracefulWorker, make_graceful

__all__ = ["GracefulSimpleWorker", "GracefulSpawnWorker", "GracefulWorker", "make_graceful"]
