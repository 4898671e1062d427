"""Worker classes over the version before: its modules had other names. Imported only by its own processes."""

from __future__ import annotations

from typing import Any

from graceful.worker import GracefulWorker, intake, mixin


class Hasty(GracefulWorker):
    """Sends its heartbeat, and looks after others, twice a second."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        mixin.BEAT_SECONDS = intake.BEAT_SECONDS = 0.5
        super().bootstrap(*args, **kwargs)
