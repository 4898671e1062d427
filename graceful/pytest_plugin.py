"""The pytest fixture ``graceful_worker``; pytest finds it through the package's entry point."""

from __future__ import annotations

import pytest

from graceful.testing import Worker


@pytest.fixture
def graceful_worker() -> Worker:
    """A worker for one job of the project's own; see :mod:`graceful.testing`."""
    return Worker()
