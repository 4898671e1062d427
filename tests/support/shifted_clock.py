"""Sets the wall clock of one process, as an administrator or NTP sets that of a machine in the middle of a shutdown."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

from graceful.core import records
from tests.support import jobs


class _Shifted(datetime):
    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.by


def shift() -> str:
    """An exit hook: ``TEST_SHIFT`` seconds forward from now on."""
    _Shifted.by = timedelta(seconds=float(os.environ["TEST_SHIFT"]))
    clock: Any = records
    clock.datetime = _Shifted
    return "shifted"


def shift_in_a_job(key: str) -> None:
    """A job of a simple worker: the clock is set when it is released."""
    jobs.until_released(key)
    shift()
