"""Jobs of the soak run."""

from __future__ import annotations

import time


def work(seconds: float) -> None:
    """Take so long, and a little memory that is given back."""
    ballast = bytes(1 << 16)
    time.sleep(seconds)
    del ballast
