"""The tools for the tests of a project's own jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graceful import testing
from graceful.jobs import resumable, shutdown_requested, time_left
from graceful.testing import Worker, shutdown_after


def test_code_sees_a_shutdown_after_so_many_items() -> None:
    """The shutdown is requested after the given number of items."""
    out = 0
    with shutdown_after(items=3, time_left=7) as run:
        assert time_left() is None
        while not shutdown_requested():
            out += 1
        assert 6 < (time_left() or 0) <= 7
        assert shutdown_requested()
    assert (out, run.finished, run.interrupted) == (3, True, False)
    assert not shutdown_requested()


def test_code_sees_a_shutdown_after_a_time() -> None:
    """The shutdown is requested after the given time."""
    with shutdown_after(seconds=0.05) as run:
        assert not shutdown_requested()
        while time_left() is None:
            pass
        assert shutdown_requested()
        for _ in resumable([1, 2]):
            pass
    assert run.interrupted


def test_the_next_run_goes_on() -> None:
    """The next run continues where the interrupted one stopped."""
    out: list[int] = []
    with testing.worker() as worker:
        with worker.shutdown_after(items=2) as run:
            out.extend(resumable(range(5)))
        assert (run.interrupted, worker.progress[0].done) == (True, 2)
        with worker.run() as run:
            out.extend(resumable(range(5)))
        assert (run.finished, worker.progress) == (True, ())
    assert out == [0, 1, 2, 3, 4]


def test_an_error_ends_the_test_and_keeps_the_cursor() -> None:
    """An error of the job propagates, and the cursors are kept."""

    def job() -> None:
        for number in resumable(range(5)):
            if number == 3:
                raise OSError("on purpose")

    worker = Worker()
    with pytest.raises(OSError, match="on purpose"), worker.run():
        job()
    assert worker.progress[0].done == 3


def test_within_another_run_the_outer_one_comes_back() -> None:
    """After a nested run the outer run's shutdown is in effect again."""
    with shutdown_after(items=0):
        assert shutdown_requested()
        with Worker().run():
            assert not shutdown_requested()
        assert shutdown_requested()


@pytest.mark.parametrize("given", [{}, {"items": 1, "seconds": 1}, {"items": -1}, {"seconds": -0.1}])
def test_it_wants_to_know_when(given: dict[str, float]) -> None:
    """Exactly one of ``items`` and ``seconds`` is required."""
    with pytest.raises(ValueError, match="items= or seconds="), shutdown_after(**given):  # type: ignore[arg-type]
        pass


def test_the_pytest_fixture(tmp_path: Path) -> None:
    """The fixture ``graceful_worker`` is available wherever the package is installed, without Django settings."""
    (tmp_path / "test_it.py").write_text(
        "from graceful.jobs import resumable\n"
        "def test_it(graceful_worker):\n"
        "    with graceful_worker.shutdown_after(items=1) as run:\n"
        "        list(resumable([1, 2]))\n"
        "    assert run.interrupted\n"
    )
    root = Path(__file__).resolve().parents[2]
    arguments = ["-p", "graceful.pytest_plugin", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        # Where the package is installed, its entry point would load the plugin too.
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(root),
            "DJANGO_SETTINGS_MODULE": "",
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert 'graceful = "graceful.pytest_plugin"' in (root / "pyproject.toml").read_text()
