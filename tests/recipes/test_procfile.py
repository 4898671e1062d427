"""The Procfile of the recipe for Heroku, run by honcho: a shell in front, and the signal to every process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from rq import Queue

from graceful.core import report_json
from graceful.reports.journal import JOURNAL_KEY
from tests.support import jobs
from tests.support.processes import ROOT, pids_in_session
from tests.support.recipe_files import only
from tests.support.server import Server
from tests.support.waiting import wait_until


@pytest.mark.parametrize("times", [1, 2])
def test_every_process_gets_the_signal(
    times: int, connection: redis.Redis, queue: Queue, valkey: Server, tmp_path: Path
) -> None:
    """As in a dyno, shell, worker and job are all sent SIGTERM, perhaps twice; the job is finished all the same."""
    procfile, found = re.subn(
        r"^worker: python manage.py",
        f"worker: {sys.executable} -m django",
        only("recipes/heroku", "procfile"),
        flags=re.MULTILINE,
    )
    assert found == 1
    (tmp_path / "Procfile").write_text(procfile)
    with (tmp_path / "output").open("wb") as output:
        honcho = subprocess.Popen(
            [sys.executable, "-m", "honcho", "-f", str(tmp_path / "Procfile"), "start", "worker"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "DATABASE_URL": "sqlite://",
                "TEST_REDIS_URL": valkey.url,
                "TEST_RUN_DIR": str(django_settings.RUN_DIR),
                "TEST_GRACEFUL_SETTINGS": json.dumps({"GRACEFUL_SPOOL_DIR": str(tmp_path / "spool")}),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said() -> str:
        return (tmp_path / "output").read_text()

    try:
        job = queue.enqueue(jobs.until_released, "go")
        wait_until(lambda: connection.hget(jobs.PIDS, job.id), 20, said)
        (worker,) = (report_json.load(text) for text in connection.hvals(JOURNAL_KEY))
        # honcho gives each of its processes a session of its own.
        for _ in range(times):
            for pid in pids_in_session(os.getsid(worker.pid)):
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: "shutdown requested (SIGTERM)" in said(), 10, said)
        connection.rpush("go", 1)
        honcho.wait(20)
        assert job.get_status(refresh=True) == "finished", said()
        (report,) = (report_json.load(text) for text in connection.hvals(JOURNAL_KEY))
        assert (report.signal, report.exit_code) == ("SIGTERM", 0), said()
    finally:
        honcho.kill()
        honcho.wait()
