"""A package index on this machine, that takes uploads and serves them; it passes nothing on to another index."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


@contextmanager
def local_index(directory: Path) -> Iterator[str]:
    """Its URL, while it runs; whoever can reach it may upload, and that is this machine alone."""
    directory.mkdir(parents=True)
    url = f"http://127.0.0.1:{_free_port()}"
    options = ["--interface", "127.0.0.1", "--port", url.rpartition(":")[2], "--disable-fallback"]
    anybody = ["--passwords", ".", "--authenticate", "."]
    command = [sys.executable, "-m", "pypiserver", "run", *options, *anybody, str(directory)]
    with (directory.parent / "index.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _answers(url), 20, lambda: (directory.parent / "index.log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
