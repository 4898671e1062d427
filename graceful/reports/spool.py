"""The spool: a directory on this machine for reports that could be stored neither in Redis nor in the database.

By default the directory is in ``/tmp``, where anyone may write. So it must belong to this user and must not be a
symbolic link, and every access goes through its descriptor.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from graceful.core import report_json
from graceful.core.records import ShutdownReport
from graceful.core.text import one_line
from graceful.exceptions import UnreadableReport
from graceful.reports import log

READ_LIMIT = 4 * report_json.ENTRY_LIMIT
"""Bytes of a file that are read; a longer one is unreadable without being read."""
SUFFIX = ".json"
UNREADABLE_SUFFIX = ".unreadable"

logger = logging.getLogger("graceful.reports")


class Spool:
    """Reports as JSON files in one directory.

    Args:
        directory: created when the first report is written, accessible to this user only.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __str__(self) -> str:
        return f"the spool {self.directory}"

    def write(self, report: ShutdownReport, *, quiet: bool = False) -> bool:
        """Write a report atomically; one line on stderr says where it is, or why it is lost.

        Never raises: there is no further fallback.

        Args:
            report: the report.
            quiet: say nothing, since the report is still to be stored elsewhere.

        Returns:
            whether it was written.
        """
        name = file_name(report.id)
        try:
            self._make()
            with self._opened() as folder:
                _write_file(folder, name, report_json.dump(report).encode())
        except (OSError, ValueError) as error:
            if not quiet:
                _say(
                    f"The shutdown report of worker {report.worker} is lost: {self.directory} is not writable: {error}"
                )
            return False
        if not quiet:
            _say(f"The shutdown report of worker {report.worker} was spooled to {self.directory / name}")
        return True

    def remove(self, *report_ids: str) -> None:
        """Remove reports; missing ones are ignored.

        Raises:
            OSError: the directory is not ours, or cannot be written.
        """
        if not self._exists():
            return
        with self._opened() as folder:
            for report_id in report_ids:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file_name(report_id), dir_fd=folder)

    def entries(self) -> list[ShutdownReport]:
        """The reports, oldest first. Unreadable files are set aside.

        Raises:
            OSError: the directory is not ours, or cannot be read.
        """
        if not self._exists():
            return []
        reports: list[ShutdownReport] = []
        with self._opened() as folder:
            for name in sorted(os.listdir(folder)):
                if name.startswith(".") or not name.endswith(SUFFIX):
                    continue
                try:
                    reports.append(_read_file(folder, name))
                except FileNotFoundError:
                    continue  # another process archived it
                except (UnreadableReport, OSError) as error:
                    _set_aside(folder, name, str(error))
        return sorted(reports, key=lambda report: (report.started_at, report.id))

    def open_lock(self, name: str) -> int:
        """A descriptor for ``flock(2)`` of a file in the directory that is no report; made if it is not there.

        Raises:
            OSError: the directory is not ours, or cannot be written.
        """
        self._make()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._opened() as folder:
            return os.open(name, flags, 0o600, dir_fd=folder)

    def set_aside(self, report_id: str, why: str) -> None:
        """Rename a report's file, so that it is kept, but not read again.

        Raises:
            OSError: the directory is not ours, or cannot be written.
        """
        with self._opened() as folder:
            _set_aside(folder, file_name(report_id), why)

    def _make(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.directory.mkdir(mode=0o700)

    def _exists(self) -> bool:
        return os.path.lexists(self.directory)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the directory.

        Raises:
            OSError: there is none, it is a symbolic link, or it belongs to another user.
        """
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid():
                raise PermissionError(f"it belongs to user {found.st_uid}, not to user {os.geteuid()}")
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(folder, 0o700)
            yield folder
        finally:
            os.close(folder)


def file_name(report_id: str) -> str:
    """A name that is safe in every file system; ids of our own form are used as they are."""
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", report_id)
    return (report_id if safe else hashlib.sha256(report_id.encode("utf-8", "replace")).hexdigest()) + SUFFIX


def _write_file(folder: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _read_file(folder: int, name: str) -> ShutdownReport:
    # Without O_NONBLOCK opening a named pipe would block for ever.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise UnreadableReport("not a file of this user")
        if found.st_size > READ_LIMIT:
            raise UnreadableReport(f"{found.st_size} bytes, at most {READ_LIMIT} are read")
        report = report_json.load(file.read(READ_LIMIT + 1))
    if file_name(report.id) != name:
        raise UnreadableReport(f"the file's name is not that of report {report.id!r}")
    return report


def _set_aside(folder: int, name: str, why: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace(name, name + UNREADABLE_SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
        logger.warning(log.UNREADABLE_FILE, name, why)


def _say(line: str) -> None:
    """One line on stderr, since logging may be shut down by now; a closed stderr is ignored."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(one_line(" ".join(line.split())) + "\n")
        sys.stderr.flush()
