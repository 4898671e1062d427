"""The test settings, which fail to load while the file ``TEST_NO_SETTINGS`` is there."""

from __future__ import annotations

import os
from pathlib import Path

from tests.settings import *  # noqa: F403

if Path(os.environ["TEST_NO_SETTINGS"]).exists():
    raise OSError("no space left on device")
