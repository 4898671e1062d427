"""Worker classes whose loop hangs; imported by processes of their own only."""

from __future__ import annotations

import threading
from typing import Any

from rq.worker import Worker

from graceful.worker.probes import vital_signs


class Hanging(Worker):
    """Hangs at its first job; what takes a minute takes a second."""

    def execute_job(self, *args: Any, **kwargs: Any) -> None:
        vital_signs.HUNG_SECONDS = vital_signs.READY_SECONDS = 1.0
        threading.Event().wait()
