"""The count of busy workers of one container, by a lock on a file."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graceful.core.deadline import Deadline
from graceful.worker.busy_count import FILE, LOOK_SECONDS, BusyCount
from tests.support.processes import ROOT


def soon() -> Deadline:
    return Deadline.after(5)


def test_the_last_one_is_alone(tmp_path: Path) -> None:
    """Only the last busy worker finds itself alone when it becomes idle."""
    one, two = BusyCount("one", tmp_path / "spool"), BusyCount("two", tmp_path / "spool")
    one.join(soon())
    two.join(soon())
    with one.left() as alone:
        assert not alone
    with two.left() as alone:
        assert alone
    with one.left() as alone:
        assert alone
    one.close()
    two.close()
    assert oct((tmp_path / "spool").stat().st_mode & 0o777) == "0o700"


def test_who_becomes_busy_waits_for_the_last_word(tmp_path: Path) -> None:
    """While a worker tells that all are idle, none counts as busy; but it does not wait for ever."""
    one, two = BusyCount("one", tmp_path), BusyCount("two", tmp_path)
    with one.left() as alone:
        assert alone
        began = time.monotonic()
        two.join(Deadline.after(0.2))
        assert 0.2 <= time.monotonic() - began < 0.2 + 10 * LOOK_SECONDS
    two.join(soon())
    with one.left() as alone:
        assert not alone
    one.close()
    two.close()


def test_a_process_that_dies_does_not_count(tmp_path: Path) -> None:
    """The kernel takes the share of a dead worker away."""
    script = f"""
import pathlib, time, django
django.setup()
from graceful.core.deadline import Deadline
from graceful.worker.busy_count import BusyCount
BusyCount("dies", pathlib.Path({str(tmp_path)!r})).join(Deadline.after(5))
print("joined", flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    lives = BusyCount("lives", tmp_path)
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as dies:
        assert dies.stdout is not None
        assert dies.stdout.readline() == b"joined\n"
        with lives.left() as alone:
            assert not alone
        dies.kill()
    with lives.left() as alone:
        assert alone
    lives.close()


def test_a_child_of_the_worker_is_part_of_it(tmp_path: Path) -> None:
    """A horse that was forked from a busy worker keeps nobody from being idle once the worker is."""
    one, two = BusyCount("one", tmp_path), BusyCount("two", tmp_path)
    one.join(soon())
    assert one._descriptor is not None
    with subprocess.Popen(["sleep", "60"], pass_fds=[one._descriptor]) as child:
        with one.left() as alone:
            assert alone
        with two.left() as alone:
            assert alone
        child.kill()
    one.close()
    two.close()


@pytest.mark.parametrize("what", ["a file", "a link", "a file system without locks"])
def test_a_directory_that_cannot_be_used(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a count each worker speaks for itself, and says so where the directory is of no use."""
    spool = tmp_path / "spool"
    if what == "a file":
        spool.touch()
    elif what == "a link":
        (tmp_path / "elsewhere").mkdir()
        spool.symlink_to(tmp_path / "elsewhere")
    else:
        monkeypatch.setattr("fcntl.flock", _no_locks)
    with caplog.at_level(logging.WARNING):
        count = BusyCount("one", spool)
        count.join(soon())
    with count.left() as alone:
        assert alone
    count.close()
    assert ("cannot be counted" in caplog.text) == (what != "a file system without locks")
    assert not (tmp_path / "elsewhere" / FILE).exists()


def _no_locks(*_: object) -> None:
    raise OSError("no locks available")
