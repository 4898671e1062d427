"""Build a release, check it as its users will meet it, and upload it to an index on this machine: a dry run.

Nothing leaves this machine; publishing is the hosted workflow's (docs/releasing.md). What it made is in ``.release``:
the sdist and the wheel, the list of dependencies (SBOM, CycloneDX), and their licences.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.release.build import ReleaseError, build, compare, run, unpack
from tests.release.index import local_index
from tests.release.refusals import git, refusals, version_of

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / ".release"
NAME = "django-rq-graceful"
FIRST_OF_2026 = 1767225600
"""The time of each file where there is no commit to take it from: in a rehearsal outside git."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.add_argument("--tagged", action="store_true", help="the tag exists, and must be on this commit")
    parser.add_argument("--rehearsal", action="store_true", help="only print what speaks against a release, and go on")
    options = parser.parse_args()
    found = refusals(ROOT, tagged=options.tagged)
    for sentence in found:
        print(sentence, file=sys.stderr)
    if found and not options.rehearsal:
        sys.exit("Not released.")
    try:
        with tempfile.TemporaryDirectory(prefix="graceful-release-") as directory:
            release(Path(directory))
    except ReleaseError as error:
        sys.exit(f"Not released: {error}.")
    print(f"{NAME} {version_of(ROOT)} is ready in {RELEASE.name}/dist; nothing was published.")


def release(scratch: Path) -> None:
    """Every step in its order.

    Raises:
        ReleaseError: one failed.
    """
    shutil.rmtree(RELEASE, ignore_errors=True)
    epoch = commit_time()
    sdist, wheel = build(ROOT, RELEASE / "dist", epoch=epoch)
    again = build(ROOT, scratch / "again", epoch=epoch)
    compare(sdist, again[0])
    compare(wheel, again[1])
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    run(sys.executable, "-m", "check_wheel_contents", wheel, cwd=ROOT)
    source = unpack(sdist, scratch / "sdist")
    units = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/unit"]
    run(*units, cwd=source, environment={"PYTHONPATH": str(source)})
    python = install_from_index(sdist, wheel, scratch)
    run(python, ROOT / ".ci/wheel_check.py", wheel, source)
    list_dependencies(python)


def commit_time() -> int:
    """When the commit was made, in seconds; a fixed time outside git."""
    try:
        return int(git(ROOT, "log", "-1", "--format=%ct"))
    except (OSError, subprocess.CalledProcessError):
        return FIRST_OF_2026


def install_from_index(sdist: Path, wheel: Path, scratch: Path) -> Path:
    """Upload to an index of our own, and install from it as a user does; the Python that has it now."""
    venv.create(scratch / "venv", with_pip=True)
    python = scratch / "venv/bin/python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    # The dependencies come from the usual index, and ours from nowhere but the local one.
    run(*pip, "install", wheel)
    run(*pip, "uninstall", "--yes", NAME)
    with local_index(scratch / "index") as url:
        login = ("--username", "dry", "--password", "run", "--non-interactive", "--disable-progress-bar")
        run(sys.executable, "-m", "twine", "upload", "--repository-url", url, *login, sdist, wheel)
        ours = ("--no-deps", "--no-cache-dir", "--index-url", f"{url}/simple/", f"{NAME}=={version_of(ROOT)}")
        run(*pip, "install", *ours)
    run(*pip, "check")
    return python


def list_dependencies(python: Path) -> None:
    """What an installation brings along, without extras: ``sbom.json`` and ``licences.json``."""
    run(sys.executable, "-m", "cyclonedx_py", "environment", python, "--output-file", RELEASE / "sbom.json")
    fields = ("--format", "json", "--with-urls", "--output-file", str(RELEASE / "licences.json"))
    run(sys.executable, "-m", "piplicenses", "--python", str(python), "--from", "mixed", *fields)


if __name__ == "__main__":
    main()
