"""The limits of a worker's memory and age, and how memory is read."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from graceful import conf, memory
from graceful.core import report_json
from graceful.core.phases import Reason
from graceful.core.records import PeakMemory
from graceful.memory import MEGABYTE
from graceful.worker import recycling
from graceful.worker.horse import memory_watch
from graceful.worker.horse.memory_watch import MemoryWatch
from graceful.worker.recycling import Recycling
from tests.db.samples import a_clean_report


def limits(**wanted: float) -> Recycling:
    return Recycling("w", dataclasses.replace(conf.settings(), **wanted))  # type: ignore[arg-type]


def test_resident_is_what_the_process_has() -> None:
    """Memory that is written to counts, in this process as in another."""
    before = memory.resident()
    assert before
    kept = b"x" * (64 * MEGABYTE)
    after = memory.resident()
    assert after
    assert 60 * MEGABYTE < after - before < 80 * MEGABYTE
    assert memory.peak() >= after - MEGABYTE
    assert memory.resident(os.getpid()) == pytest.approx(after, abs=MEGABYTE)
    del kept


def test_resident_of_nobody_is_unknown() -> None:
    """A process that has ended has no memory that could be read."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory.resident(ended.pid) is None


def test_peak_of_an_ended_process() -> None:
    """What wait4(2) says of a child is what that has taken; the kernel adds nothing of its parent after a fork."""
    child = os.fork()
    if child == 0:
        kept = b"x" * (96 * MEGABYTE)
        os._exit(len(kept) and 0)
    resident = memory.resident() or 0
    _, _, usage = os.wait4(child, 0)
    assert 96 * MEGABYTE < memory.peak(usage) < 112 * MEGABYTE + resident


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000),
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "500\n"}, 500),
        ("0::/\n", {"memory.max": "2000\n"}, 2000),
        ("0::/../../on-the-host\n", {"memory.max": "2000\n"}, 2000),
        ("0::/a\n", {"a/memory.max": "max\n"}, None),
        ("0::/a\n", {}, None),
        ("4:cpu:/x\n3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "700\n"}, 700),
        ("3:hugetlb,memory:/docker/123\n", {"memory/memory.limit_in_bytes": "700\n"}, 700),
        ("3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
)
def test_limit_of_the_control_group(membership: str, files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    """The least limit from the process's group up to the top holds, in version 2 as in version 1."""
    groups = tmp_path / "cgroup"
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content)
    (tmp_path / "membership").write_text(membership)
    assert memory.control_group_limit(groups, tmp_path / "membership") == limit


def test_without_control_groups_nothing_is_known(tmp_path: Path) -> None:
    """A system without control groups has no limit that is known."""
    assert memory.control_group_limit(tmp_path, tmp_path / "none") is None


def test_nothing_is_read_if_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without limits reads no file for them."""
    monkeypatch.setattr(recycling, "memory", None)
    unlimited = limits()
    unlimited.begin()
    assert (unlimited.after_job(), unlimited.too_old(), unlimited.seconds_left) == (None, None, None)


def test_worker_and_horse_count_together(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Above the limit, the worker takes no other job; the log says how much each of the two had."""
    monkeypatch.setattr(memory, "resident", lambda: 60 * MEGABYTE)
    limited = limits(max_memory=100)
    assert limited.after_job() is None
    limited.horse_peak = 40 * MEGABYTE
    assert limited.after_job() is None
    limited.horse_peak += 1
    with caplog.at_level(logging.INFO, "graceful.worker"):
        assert limited.after_job() is Reason.MEMORY
    assert caplog.messages == [recycling.TOO_LARGE % ("w", 60, 40, 100)]


def test_start_says_what_cannot_work(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A limit above that of the container, and one that the worker has reached at its start, are warned of."""
    monkeypatch.setattr(memory, "resident", lambda: 60 * MEGABYTE)
    monkeypatch.setattr(memory, "control_group_limit", lambda: 100 * MEGABYTE)
    with caplog.at_level(logging.INFO, "graceful.worker"):
        limits(max_memory=80).begin()
        limits(max_memory=100).begin()
        limits(max_memory=50).begin()
    held = recycling.LARGEST
    assert caplog.messages == [
        held % ("w", 80, "100 MB"),
        held % ("w", 100, "100 MB"),
        recycling.ABOVE_GROUP % ("w", 100, 100),
        held % ("w", 50, "100 MB"),
        recycling.TOO_SMALL % ("w", 50, 60),
    ]


def test_memory_that_cannot_be_read_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where ``/proc`` is hidden a worker goes on, and has said so."""
    monkeypatch.setattr(memory, "resident", lambda: None)
    limited = limits(max_memory=1)
    limited.begin()
    assert limited.after_job() is None
    assert recycling.UNREADABLE % "w" in caplog.messages


def test_age_is_counted_from_the_start() -> None:
    """A worker is too old once its time is over, and not before."""
    assert limits(max_age=60).after_job() is None
    assert limits(max_age=60).seconds_left == pytest.approx(60, abs=1)
    assert limits(max_age=1e-9).after_job() is Reason.AGE


@pytest.mark.parametrize("reason", [Reason.MEMORY, Reason.AGE])
def test_json_has_a_reason_that_the_first_release_knows(reason: Reason) -> None:
    """A recycled worker's report says ``max_jobs``, and beside it what for; reading puts it together."""
    report = a_clean_report()._replace(reason=reason, signal=None, peak=PeakMemory(1, 2**40))
    plain = report_json.plain(report)
    assert (plain["reason"], plain["recycled"]) == ("max_jobs", reason.value)
    assert plain["peak_bytes"] == {"worker": 1, "horse": 2**40}
    assert report_json.load(report_json.dump(report)) == report


@pytest.mark.parametrize("word", ["moon", 7, None, ["memory"], "signal"])
def test_an_unknown_word_beside_the_reason_is_passed_over(word: object) -> None:
    """A later version may recycle for more reasons: its reports are read."""
    plain = report_json.plain(a_clean_report()._replace(reason=Reason.MAX_JOBS))
    assert report_json.load(json.dumps({**plain, "recycled": word})).reason is Reason.MAX_JOBS


def test_every_reason_is_stored_as_one_of_the_first_release() -> None:
    """Readers of the first release refuse a report whose reason is none of these."""
    first = {"signal", "burst", "max_jobs", "idle", "command", "redis_lost", "error", "killed", "exit"}
    assert {reason.stored for reason in Reason} == first


@pytest.mark.parametrize(("limit", "warned"), [(80, []), (100, ["group"]), (50, ["small"])])
@pytest.mark.parametrize("horse", [True, False], ids=["horse", "simple"])
def test_a_limit_for_jobs_that_cannot_work_is_warned_of(
    limit: int,
    warned: list[str],
    horse: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the start: the container's limit comes first, or each job begins above it, as a forked horse does."""
    monkeypatch.setattr(memory, "resident", lambda: 60 * MEGABYTE)
    monkeypatch.setattr(memory, "control_group_limit", lambda: 100 * MEGABYTE)
    worker, process = SimpleNamespace(name="w"), SimpleNamespace(can_be_killed=horse)
    settings = dataclasses.replace(conf.settings(), job_memory=limit)
    MemoryWatch(worker, settings, None, process).begin()  # type: ignore[arg-type]
    lines = {"group": memory_watch.ABOVE_GROUP % ("w", limit, 100), "small": memory_watch.TOO_SMALL % ("w", limit, 60)}
    assert caplog.messages == [lines[each] for each in warned if horse or each == "group"]
