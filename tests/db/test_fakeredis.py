"""``fakeredis``, which many projects test with, in the place of a server."""

from __future__ import annotations

import os
import subprocess
import sys

import fakeredis
import pytest
from rq import Queue

from graceful.core.phases import Outcome
from graceful.hooks import runner
from graceful.worker import GracefulSimpleWorker

WITHOUT_LUA = """
import logging, sys
sys.modules["lupa"] = None  # As if it was not installed.
import django, fakeredis
from rq import Queue
django.setup()
logging.basicConfig()
from graceful.worker import GracefulSimpleWorker
connection = fakeredis.FakeStrictRedis()
GracefulSimpleWorker([Queue("default", connection=connection)], connection=connection).work(burst=True)
"""


def test_fakeredis_without_lua() -> None:
    """A worker on a fakeredis without its extra ends at its start, and says what is missing."""
    environment = {**os.environ, "DATABASE_URL": "sqlite://", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    ended = subprocess.run([sys.executable, "-c", WITHOUT_LUA], capture_output=True, env=environment, text=True)
    assert ended.returncode == os.EX_SOFTWARE, ended.stderr
    assert 'pip install "fakeredis[lua]"' in ended.stderr


@pytest.mark.django_db(transaction=True)  # The report is stored by a thread, so outside of a test's transaction.
def test_a_burst_on_fakeredis() -> None:
    """A burst of a worker without horses runs its jobs on fakeredis, and has its report."""
    connection = fakeredis.FakeStrictRedis()
    queue = Queue("default", connection=connection)
    good, bad = queue.enqueue("builtins.len", "abc"), queue.enqueue("builtins.int", "no number")
    worker = GracefulSimpleWorker([queue], connection=connection)
    try:
        assert worker.work(burst=True)
    finally:
        runner.release()
    assert (good.get_status(refresh=True), bad.get_status(refresh=True)) == ("finished", "failed")
    assert good.return_value() == 3
    report = worker.report
    assert report is not None
    assert (report.outcome, report.jobs.finished, report.jobs.failed) == (Outcome.CLEAN, 1, 1)
