"""Whatever others have written under our keys: workers start, reports are read, and every page is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from rq import Queue

from graceful.core import report_json
from graceful.reports import sources
from graceful.reports.journal import JOURNAL_KEY, UNREADABLE_KEY
from graceful.reports.set_aside import TYPES, WRONG_TYPE_SUFFIX
from graceful.worker.cluster.process_identity import Process, machine
from graceful.worker.cluster.registration import HEARTBEATS_KEY, MACHINE_KEY, WORKERS_KEY, Registration
from graceful.worker.queue.fetch import HELD_KEY, HOLDERS_KEY
from tests.conftest import StartWorker
from tests.db.samples import a_report
from tests.support import jobs
from tests.support.waiting import wait_until

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n\u202eevil"
DEAD = Process.here()._replace(pid=2**22 + 7, started="1")
"""A process of this machine that is certain to be gone."""
GONE: dict[str, Any] = json.loads(Registration("gone", f"gone{ESCAPES}", ("default",), DEAD).to_json())
REGISTRATIONS: dict[str, Any] = {
    "infinite": {**GONE, "life": "infinite", "process": {**GONE["process"], "pid": float("inf")}},
    "oom": {**GONE, "life": "oom", "oom_kills": float("inf")},
    "surrogate": {**GONE, "life": "surrogate", "worker": "\ud800"},
    "queue": {**GONE, "life": "queue", "queues": ["\ud800"]},
    "other": {**GONE, "life": "another's"},
    "no object": [1],
    "gone": GONE,
}


def write_hostile(connection: redis.Redis) -> None:
    """In every one of our keys all sorts of entries, each of a worker that seems to have died here."""
    worker_ids = [*(worker_id.encode() for worker_id in REGISTRATIONS), b"\xff\xfe", b"digits", b""]
    for worker_id, registration in REGISTRATIONS.items():
        connection.hset(WORKERS_KEY, worker_id, json.dumps(registration))
    connection.hset(WORKERS_KEY, b"\xff\xfe", b"\x80\x04pickle")
    connection.hset(WORKERS_KEY, "digits", json.dumps({**GONE, "life": "digits"}))
    for score, worker_id in zip(
        (1, float("inf"), float("-inf"), -62135596800, 1e300, 0, 2, 3, 4, 5), worker_ids, strict=True
    ):
        connection.zadd(HEARTBEATS_KEY, {worker_id: score})
        connection.sadd(MACHINE_KEY.format(machine()), worker_id)
    held = {"fetch": "x", "queue": "rq:queue:default", "job": "no-such-job", "horse": "9" * 5000, b"\xff": b"\xff"}
    connection.hset(HELD_KEY.format("digits"), mapping=held)
    connection.hset(HELD_KEY.format("oom"), mapping={"queue": "\ud800".encode("utf-8", "surrogatepass"), "job": "\xff"})
    connection.set(HELD_KEY.format("gone"), "no hash")
    connection.hset(HOLDERS_KEY, mapping={b"\xff": b"\xff", "no-such-job": "digits", "": ""})
    plain = report_json.plain(a_report(id="early"))
    connection.hset(JOURNAL_KEY, "early", json.dumps({**plain, "started_at": "0001-01-01T00:00:00+00:00"}))
    connection.hset(JOURNAL_KEY, "named", report_json.dump(a_report(id="named", worker=ESCAPES, release=ESCAPES)))
    connection.hset(JOURNAL_KEY, b"\xff", b"\xff")


def write_wrong_types(connection: redis.Redis) -> list[str]:
    """Every one of our keys as something else; returns the keys."""
    keys = [*TYPES, MACHINE_KEY.format(machine())]
    for key in keys:
        connection.set(key, "?")
    return keys


def works_and_ends(
    start_worker: StartWorker, queue: Queue, name: str, once: Callable[[], object] = lambda: True
) -> str:
    """Start a worker that does a job, and stop it ``once`` that is true; returns its output."""
    job = queue.enqueue(jobs.quick)
    worker = start_worker(name=name)
    wait_until(lambda: job.get_status(refresh=True) == "finished" and once(), 10, lambda: worker.output)
    worker.signal()
    assert worker.wait(10) == 0, worker.output
    return worker.output


@pytest.mark.usefixtures("shared_database")
def test_a_worker_among_hostile_entries(connection: redis.Redis, queue: Queue, start_worker: StartWorker) -> None:
    """The worker starts, runs its jobs and ends cleanly; bad entries are set aside and logged once."""
    write_hostile(connection)
    output = works_and_ends(start_worker, queue, "gone", lambda: connection.hget(UNREADABLE_KEY, "early"))
    assert "Traceback" not in output
    assert not set(output) & set(ESCAPES) - set("\nevilowned02J[];")
    for worker_id in ("infinite", "surrogate", "other", "no object"):
        assert connection.hexists(f"{WORKERS_KEY}:unreadable", worker_id), worker_id
        assert output.count(f"Unreadable entry {worker_id} of {WORKERS_KEY}") == 1, worker_id
    assert connection.hkeys(WORKERS_KEY) == []
    assert connection.zcard(HEARTBEATS_KEY) == 0
    assert connection.hget(UNREADABLE_KEY, "early")
    assert connection.hget(UNREADABLE_KEY, b"\xff") == b"\xff"
    err, out = StringIO(), StringIO()
    call_command("shutdown_report", stdout=out, stderr=err)
    assert "gone" in out.getvalue()
    assert out.getvalue().isascii()


def test_a_lock_that_never_ends_gets_an_end(connection: redis.Redis, start_worker: StartWorker) -> None:
    """A lock without an expiry gets one."""
    connection.hset(WORKERS_KEY, "gone", json.dumps(GONE))
    connection.sadd(MACHINE_KEY.format(machine()), "gone")
    connection.rpush("graceful:autopsy:gone", "no lock")
    start_worker()
    wait_until(lambda: connection.ttl("graceful:autopsy:gone") > 0, 10, "the lock has an end")


@pytest.mark.usefixtures("shared_database")
def test_a_worker_where_every_key_is_of_a_wrong_type(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Keys of the wrong type are renamed with an expiry, and the worker runs."""
    keys = write_wrong_types(connection)
    output = works_and_ends(start_worker, queue, "w")
    for key in keys:
        assert connection.get(key + WRONG_TYPE_SUFFIX) == b"?", key
        assert connection.ttl(key + WRONG_TYPE_SUFFIX) > 0
        assert output.count(f"Key {key} was a string") == 1, output


@pytest.mark.usefixtures("shared_database")
def test_keys_that_become_of_a_wrong_type_under_a_worker(
    connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """A running worker goes on when its keys become of the wrong type."""
    worker = start_worker()
    write_wrong_types(connection)
    job = queue.enqueue(jobs.quick)
    wait_until(lambda: job.get_status(refresh=True) == "finished", 10, lambda: worker.output)
    worker.signal()
    assert worker.wait(10) == os.EX_OK, worker.output


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("write", [write_hostile, write_wrong_types], ids=["entries", "types"])
def test_commands_and_pages(
    connection: redis.Redis, admin_client: Client, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command and page answers, and no terminal escape gets through."""
    sources.page_archiver.paused_until = 0
    write(connection)
    call_command("archive_reports", "--seconds", "5")
    write(connection)
    with suppress(CommandError):  # "There is no shutdown report yet", where all were of a wrong type.
        call_command("shutdown_report")
    written = capsys.readouterr()
    assert (written.out + written.err).isascii()
    assert "\x1b" not in written.out + written.err
    write(connection)
    sources.page_archiver.paused_until = 0
    listed = admin_client.get(reverse("admin:graceful_shutdownreport_changelist"))
    assert listed.status_code == 200
    assert admin_client.get(reverse("admin:graceful_lastshutdownreport_changelist")).status_code == 302
    for row in listed.context["cl"].result_list:
        assert admin_client.get(reverse("admin:graceful_shutdownreport_change", args=[row.pk])).status_code == 200
        assert admin_client.get(reverse("admin:graceful_shutdownreport_export", args=[row.pk])).status_code == 200
