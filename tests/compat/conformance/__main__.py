"""Runs the tests of Django's Tasks, and of django-tasks-rq's backend, over our backend; each one must pass.

The tests come out of the source distributions of the installed Django (6 or later) and of django-tasks-rq; nothing of
them is kept here. The one is written for Django's dummy backend, and has ours in its place; the other for the package
django-tasks, and has Django's own Tasks in its place, and a real server. A test that fails stands in
``differences.toml``, beside the documented behaviour that it contradicts; and what stands there has to fail.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.compat.environment import ROOT, unpack
from tests.support.server import Server

HERE = Path(__file__).parent
OTHER = "0.12.0"
"""Of django-tasks-rq."""
NOT_OURS = ("test_custom_backend.py", "test_immediate_backend.py")
"""Tests of Django's that are about other backends alone."""
IN_DJANGO = (
    (r'"django\.tasks\.backends\.dummy\.DummyBackend"', '"conformance.Backend"'),
    (r"from django\.tasks\.backends\.dummy import DummyBackend", "from conformance import Backend as DummyBackend"),
)
IN_OTHER = (
    (r"\bdjango_tasks\b", "django.tasks"),
    (r"\bInvalidTaskError\b", "InvalidTask"),
    (r'"django_tasks_rq\.RQBackend"', '"conformance.Backend"'),
    (r"from django_tasks_rq\.backend import Job, RQBackend", "from conformance import Backend as RQBackend"),
    (r"from django_tasks_rq import compat\n", "from rq.job import Job\n"),
    (r"from tests import tasks as", "from tasks import tasks as"),
    ("This task failed due", "This Task failed due"),
    (r"(?s)\n\nclass CompatTestCase.*", ""),  # About its own module.
)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory, Server({}) as server:
        source = Path(directory)
        fetch("django", version("django"), source, "tests/tasks")
        (source / "tests/tasks").rename(source / "tasks")
        fetch("django-tasks-rq", OTHER, source, "tests")
        for path in (source / "tasks").glob("test_*.py"):
            if path.name in NOT_OURS:
                path.unlink()
            else:
                rewrite(path, path, IN_DJANGO)
        rewrite(source / "tests/tests.py", source / "tests/test_rq_backend.py", IN_OTHER)
        failed = run(source, server.port)
    listed = [
        test for each in tomllib.loads((HERE / "differences.toml").read_text())["difference"] for test in each["tests"]
    ]
    for test in sorted(failed.keys() - set(listed)):
        print(f"\nNOT LISTED {test}\n{failed[test]}")
    for test in sorted(set(listed) - failed.keys()):
        print(f"\nNO DIFFERENCE ANY MORE {test}")
    return int(failed.keys() != set(listed))


def fetch(package: str, release: str, target: Path, directory: str) -> None:
    """Download a source distribution, and unpack one directory of it.

    Raises:
        subprocess.CalledProcessError: pip failed; its output was printed.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-binary", package, "--dest", str(target), f"{package}=={release}"], check=True)
    archive = target / f"{package.replace('-', '_')}-{release}.tar.gz"
    unpack(archive, target, lambda path: path.is_relative_to(directory))


def rewrite(path: Path, target: Path, changes: Sequence[tuple[str, str]]) -> None:
    """Put our backend into the place of the one that a file is about.

    Raises:
        ValueError: a change finds nothing: the tests are not those that this was written for.
    """
    text = path.read_text()
    for pattern, replacement in changes:
        text, found = re.subn(pattern, replacement, text)
        if not found and changes is IN_OTHER:
            raise ValueError(f"{path.name} has no {pattern}")
    target.write_text(text)


def run(source: Path, port: int) -> dict[str, str]:
    """Run the tests, and print their number.

    Returns:
        what failed, by pytest's id, and how.

    Raises:
        RuntimeError: pytest could not start.
    """
    results = source / "results"
    environment = {
        name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PATH", "TMPDIR", "USER"}
    }
    environment |= {
        "PYTHONPATH": f"{source}:{HERE / 'inside'}:{HERE.parent / 'inside'}:{ROOT}",
        "DJANGO_SETTINGS_MODULE": "conformance_settings",
        "COMPAT_PORT": str(port),
        "COMPAT_PORTS": str(port),
        "COMPAT_RESULTS": str(results),
    }
    command = [sys.executable, "-m", "pytest", "-p", "compat_plugin", "-p", "no:cacheprovider", "-p", "no:graceful"]
    done = subprocess.run(
        [*command, "--quiet", "--rootdir", str(source), "tasks", "tests"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode not in (0, 1) or not results.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    print(done.stdout.strip().splitlines()[-1])
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {line["test"]: line["text"] for line in lines if line["outcome"] == "failed"}


if __name__ == "__main__":
    sys.exit(main())
