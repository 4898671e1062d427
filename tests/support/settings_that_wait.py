"""The test settings, whose loading makes the file ``TEST_LOADING``, and waits for the file ``TEST_GO``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.settings import *  # noqa: F403

Path(os.environ["TEST_LOADING"]).touch()
while not Path(os.environ["TEST_GO"]).exists():
    time.sleep(0.01)
