"""A program that goes on after ``work()``: whose signal handlers it has, and from when on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import redis

from tests.support.processes import ROOT
from tests.support.server import Server

PROGRAM = """
import os, signal, sys, threading, time, django
django.setup()
import django_rq
from graceful.worker import GracefulWorker
def own(signum, frame):
    print("own handler", flush=True)
how, late = sys.argv[1:]
if how == "own":
    signal.signal(signal.SIGTERM, own)
before = signal.getsignal(signal.SIGTERM)
queue = django_rq.get_queue("default")
worker = GracefulWorker([queue], connection=queue.connection)
def stop():
    while queue.connection.hget(worker.key, "state") != b"idle":
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
if how != "burst":
    threading.Thread(target=stop).start()
worker.work(burst=how == "burst")
assert worker.exit_code == 0
if how != "default":
    assert signal.getsignal(signal.SIGTERM) == before
time.sleep(float(late))
os.kill(os.getpid(), signal.SIGTERM)
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "late", "code", "output"),
    [
        pytest.param("default", 0, 0, "went on\n", id="a further signal within a second belongs to the first"),
        pytest.param("default", 1.1, -signal.SIGTERM, "", id="a second later it ends the program"),
        pytest.param("burst", 0, -signal.SIGTERM, "", id="nobody asked the worker to stop"),
        pytest.param("own", 0, 0, "own handler\nwent on\n", id="the program has a handler of its own"),
    ],
)
def test_handlers_come_back(
    how: str, late: float, code: int, output: str, valkey: Server, connection: redis.Redis
) -> None:
    """Later signals are the program's, as they were before; those of the same request do not end it."""
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT), "TEST_REDIS_URL": valkey.url}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(late)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = "".join(line for line in done.stdout.splitlines(keepends=True) if line in ("own handler\n", "went on\n"))
    assert (done.returncode, said) == (code, output), done.stdout + done.stderr
