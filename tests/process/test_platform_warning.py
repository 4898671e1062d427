"""A worker that starts with a grace period that does not fit its platform says so, and starts all the same."""

from __future__ import annotations

import pytest

from tests.conftest import StartWorker

HEROKU = {"DYNO": "worker.1", "KUBERNETES_SERVICE_HOST": "", "SUPERVISOR_ENABLED": ""}


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ([], {"GRACEFUL_TIMEOUT": 40}, "GRACEFUL_TIMEOUT should be at most 25, since Heroku sends SIGKILL after 30 s"),
        (["--timeout", "28"], {}, "--timeout should be at most 25, since Heroku sends SIGKILL after 30 s"),
        (["--timeout", "20"], {"GRACEFUL_TIMEOUT": 40}, ""),
        (["--skip-checks"], {"GRACEFUL_TIMEOUT": 40}, ""),
        ([], {"GRACEFUL_TIMEOUT": 40, "SILENCED_SYSTEM_CHECKS": ["graceful.W005"]}, ""),
    ],
)
def test_warning(options: list[str], settings: dict[str, object], words: str, start_worker: StartWorker) -> None:
    """The grace period that holds for this worker is compared; its warning can be silenced, and stops nothing."""
    worker = start_worker(options=options, settings=settings, environment=HEROKU)
    assert ("W005" in worker.output) == bool(words)
    assert words in worker.output
    worker.signal()
    assert worker.wait() == 0, worker.output
