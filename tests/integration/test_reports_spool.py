"""The spool in a real directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from graceful.core import report_json
from graceful.core.report_json import ENTRY_LIMIT
from graceful.models import ShutdownReport as ArchivedReport
from graceful.reports import archive
from graceful.reports.spool import Spool, file_name
from tests.db.samples import a_report


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "deep" / "spool")


def test_what_is_written_is_read(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """A spooled report is read back unchanged."""
    report = a_report(worker="web-1\nforged line")
    assert spool.write(report)
    assert spool.entries() == [report]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(spool.directory / f"{report.id}.json") in said
    spool.remove(report.id, "not there")
    assert spool.entries() == []


def test_only_this_user_can_read_it(spool: Spool) -> None:
    """Directory and files are accessible to this user only."""
    spool.write(a_report())
    spool.directory.chmod(0o755)
    spool.write(a_report())
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (spool.directory, *spool.directory.iterdir())]
    assert modes == [0o700, 0o600, 0o600]


def test_nothing_is_there_before_the_first_report(spool: Spool) -> None:
    """Reading creates no directory."""
    assert spool.entries() == []
    spool.remove("x")
    assert not spool.directory.exists()


def test_a_symbolic_link_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spool directory that is a symbolic link is refused."""
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    spool = Spool(tmp_path / "link")
    assert spool.write(a_report()) is False
    assert list(target.iterdir()) == []
    assert capsys.readouterr().err.startswith("The shutdown report of worker web-1.4242 is lost: ")
    with pytest.raises(OSError):
        spool.entries()
    assert archive.archive_pending(spool, 1) == 0


def test_a_directory_of_another_user_is_refused(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool directory of another user is refused."""
    spool.directory.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert spool.write(a_report()) is False
    with pytest.raises(PermissionError):
        spool.entries()


def test_a_full_disk_costs_one_line(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed write leaves one line on stderr and no partial file."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert spool.write(a_report()) is False
    assert "No space left on device" in capsys.readouterr().err
    assert list(spool.directory.iterdir()) == []


def test_a_stderr_that_is_gone_is_no_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stderr is ignored."""
    monkeypatch.setattr("sys.stderr", None)
    assert spool.write(a_report())


def test_unreadable_files_are_set_aside(spool: Spool, tmp_path: Path) -> None:
    """Unreadable files, pipes and links are set aside, and the other files are read."""
    good = a_report()
    spool.write(good)
    (spool.directory / "bad.json").write_bytes(b"\x80\x04pickle")
    (spool.directory / "huge.json").write_bytes(b" " * (4 * ENTRY_LIMIT + 1))
    (spool.directory / "renamed.json").write_text(report_json.dump(a_report()))
    os.mkfifo(spool.directory / "pipe.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(report_json.dump(a_report(id="link")))
    (spool.directory / "link.json").symlink_to(elsewhere)
    (spool.directory / "folder.json").mkdir()
    (spool.directory / ".half.json.123").write_text("{")
    assert spool.entries() == [good]
    left = sorted(path.name for path in spool.directory.iterdir() if path.name.endswith(".unreadable"))
    names = ["bad", "folder", "huge", "link", "pipe", "renamed"]
    assert left == [f"{name}.json.unreadable" for name in names]
    assert spool.entries() == [good]


@pytest.mark.parametrize("report_id", ["../../etc/passwd", "..", "a/b", "\u00e4" * 64, ".hidden", "-rf", "x y"])
def test_an_id_never_leaves_the_directory(spool: Spool, report_id: str) -> None:
    """The file of a report stays in the directory, whatever its id."""
    name = file_name(report_id)
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert len(name) < 100
    report = a_report(id=report_id)
    assert spool.write(report)
    assert spool.entries() == [report]
    spool.remove(report_id)
    assert list(spool.directory.iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_spooled_reports_are_archived(spool: Spool) -> None:
    """Spooled reports are archived and removed."""
    spool.write(a_report())
    spool.write(a_report())
    assert archive.archive_pending(spool, 5) == 2
    assert ArchivedReport.objects.count() == 2
    assert list(spool.directory.iterdir()) == []
