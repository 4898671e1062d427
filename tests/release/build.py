"""Make the sdist and the wheel, twice, and look into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

CARRIED = (
    "tests/conftest.py",
    "docs/architecture.md",
    "demo_project/settings.py",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
)
"""Some of what an sdist must have, so that its tests run and its documents can be read."""


class ReleaseError(Exception):
    """The release cannot go on; the message says why."""


def run(*command: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    """Run it, and print that it is run.

    Raises:
        ReleaseError: it failed.
    """
    print("$", *(Path(part).name if isinstance(part, Path) else part for part in command), flush=True)
    try:
        subprocess.run([str(part) for part in command], check=True, cwd=cwd, env={**os.environ, **(environment or {})})
    except subprocess.CalledProcessError as error:
        raise ReleaseError(f"{Path(command[0]).name} failed with exit code {error.returncode}") from error


def build(source: Path, directory: Path, *, epoch: int) -> tuple[Path, Path]:
    """The sdist, and the wheel made from it, in ``directory``.

    Args:
        source: the checkout.
        directory: a place for them; what was there is removed.
        epoch: what stands for the time of each file (``SOURCE_DATE_EPOCH``), in seconds.
    """
    shutil.rmtree(directory, ignore_errors=True)
    environment = {"SOURCE_DATE_EPOCH": str(epoch)}
    run(sys.executable, "-m", "build", "--outdir", directory, source, environment=environment)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return sdist, wheel


def compare(first: Path, second: Path) -> None:
    """Check that two builds are the same, byte by byte.

    Raises:
        ReleaseError: they are not.
    """
    if first.read_bytes() != second.read_bytes():
        raise ReleaseError(f"{first.name} differs between two builds of the same source")


def unpack(sdist: Path, directory: Path) -> Path:
    """The directory that the sdist has in it.

    Raises:
        ReleaseError: it lacks what it must carry.
    """
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    (source,) = directory.iterdir()
    lacking = [name for name in CARRIED if not (source / name).exists()]
    if lacking:
        raise ReleaseError(f"{sdist.name} lacks {', '.join(lacking)}")
    return source
