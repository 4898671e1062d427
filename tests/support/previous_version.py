"""The version before, for processes that run it beside the present one; see ``tests/data/README.md``.

Its processes take ``tests`` and ``demo_project`` from the checkout, and only the package ``graceful`` from the archive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.processes import ROOT

ARCHIVE = ROOT / "tests" / "data" / "previous-version.zip"
HASTY = "tests.support.previous_workers.Hasty"
"""As ``tests.support.dying_workers.Hasty``, of the version before."""


def unpack(directory: Path) -> dict[str, str]:
    """Unpack the version before into an empty directory; returns the environment of a process that runs it.

    Raises:
        AssertionError: a process with this environment would run something else.
    """
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(directory)
    # PYTHONSAFEPATH: ``python -m`` would put the working directory, which is the checkout, before PYTHONPATH.
    environment = {
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
        "PYTHONSAFEPATH": "1",
        "DJANGO_SETTINGS_MODULE": "tests.support.previous_settings",
    }
    found = subprocess.run(
        [sys.executable, "-c", "import graceful; print(graceful.__file__)"],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
    ).stdout.strip()
    assert Path(found).is_relative_to(directory), f"not the version before: {found}"
    return environment
