"""What a run needs, made once a version of RQ in ``.compat``: a venv, and the tests of the source distribution."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".compat"
REQUIREMENTS = ("django>=5.2", "django-rq>=4.0", "psutil", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.6")
PINNED = {"2.6.1": ("redis==5.0.0",)}
"""RQ 2.6.1's own tests do not know what later versions of redis-py changed."""


@dataclass(frozen=True)
class Home:
    """Where one version's things are.

    Args:
        venv: the venv with that RQ.
        source: the unpacked source distribution, without RQ's code.
        path: the directory that has our package in it, and nothing else of ours.
    """

    venv: Path
    source: Path
    path: Path


def prepare(version: str) -> Home:
    """Make what is not there yet.

    Raises:
        subprocess.CalledProcessError: pip failed; its output was printed.
    """
    requirements = (f"rq=={version}", *PINNED.get(version, ()), *REQUIREMENTS)
    key = hashlib.sha256(repr((sys.version, requirements)).encode()).hexdigest()[:8]
    here = CACHE / f"rq-{version}-{key}"
    home = Home(here / "venv", here / "source", here / "path")
    if not (here / "done").exists():
        shutil.rmtree(here, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        # Packages of pip's choice but RQ's, whose source is what we are after.
        download = ["download", "--quiet", "--no-deps", "--no-binary", "rq", "--dest", str(here), f"rq=={version}"]
        subprocess.run([*pip, *download], check=True)
        # Without the code: the installed one is tested.
        unpack(here / f"rq-{version}.tar.gz", home.source, lambda path: path.parts[0] != "rq")
        subprocess.run([sys.executable, "-m", "venv", str(home.venv)], check=True)
        install = ["--python", str(home.venv / "bin/python"), "install", "--quiet", *requirements]
        subprocess.run([*pip, *install], check=True)
        home.path.mkdir()
        (home.path / "graceful").symlink_to(ROOT / "graceful")
        (here / "done").touch()
    return home


def unpack(archive: Path, target: Path, wanted: Callable[[Path], bool]) -> None:
    """Unpack the files of a source distribution that are wanted, without its first directory."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            inner = Path(*Path(member.name).parts[1:])
            if member.isfile() and wanted(inner):
                member.name = str(inner)
                tar.extract(member, target, filter="data")
