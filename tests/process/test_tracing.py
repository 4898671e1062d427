"""A shutdown as OpenTelemetry spans: with the real SDK, in real workers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from opentelemetry import trace
from rq import Queue

from graceful.core.records import ShutdownReport
from graceful.hooks import tracing
from tests.conftest import StartWorker
from tests.support import jobs
from tests.support.processes import WorkerProcess
from tests.support.reports import report_of
from tests.support.waiting import wait_until
from tests.support.worker_hooks import notes

HOOKS = "tests.support.worker_hooks"
FLUSH = "graceful.hooks.builtin.shutdown_opentelemetry"
TRACED = ["--worker-class", "tests.support.tracing_worker.Traced"]


def settings(*hooks: str) -> dict[str, Any]:
    return {"GRACEFUL_TIMEOUT": 20.0, "GRACEFUL_HOOKS_TIMEOUT": 12.0, "GRACEFUL_EXIT_HOOKS": list(hooks)}


def spans_of(worker: WorkerProcess, path: Path) -> dict[str, dict[str, Any]]:
    """The spans by name; each is there once."""
    found = notes(path, "span")
    assert len({span["name"] for span in found}) == len(found)
    return {span["name"]: span for span in found}


@pytest.mark.parametrize("last", [[], [FLUSH]])
def test_one_span_a_shutdown_with_children(
    last: list[str], connection: redis.Redis, queues: dict[str, Queue], start_worker: StartWorker, tmp_path: Path
) -> None:
    """The shutdown is a span with the drain and each hook as children, whether or not a hook ends the provider."""
    path = tmp_path / "notes"
    hooks = settings(f"{HOOKS}.naps", f"{HOOKS}.failing", *last)
    worker = start_worker(options=TRACED, settings=hooks, environment={"TEST_NOTES": str(path)})
    job = queues["default"].enqueue(jobs.until_released, "go")
    wait_until(lambda: connection.hget(jobs.RUNNING, job.id) == b"1")
    worker.signal()
    wait_until(lambda: "shutdown requested" in worker.output)
    connection.rpush("go", 1)
    assert worker.wait() == 70
    spans = spans_of(worker, path)
    assert set(spans) == {"worker shutdown", "drain", f"{HOOKS}.naps", f"{HOOKS}.failing"}
    root = spans.pop("worker shutdown")
    assert root["parent"] is None
    assert {span["parent"] for span in spans.values()} == {root["id"]}
    assert all(root["begin"] <= span["begin"] <= span["end"] <= root["end"] for span in spans.values())
    assert 0.9 < (spans[f"{HOOKS}.naps"]["end"] - spans[f"{HOOKS}.naps"]["begin"]) / 1e9 < 2
    assert spans["drain"]["end"] <= spans[f"{HOOKS}.naps"]["begin"] <= spans[f"{HOOKS}.failing"]["begin"]
    assert (root["status"], spans[f"{HOOKS}.failing"]["status"], spans[f"{HOOKS}.naps"]["status"]) == (
        "ERROR",
        "ERROR",
        "UNSET",
    )
    report = report_of(connection, worker)
    assert report.requested_at is not None
    assert root["begin"] == pytest.approx(report.requested_at.timestamp() * 1e9, abs=1e6)
    told = root["attributes"]
    assert (told["graceful.outcome"], told["graceful.signal"]) == ("hooks_failed", "SIGTERM")
    assert told["graceful.worker"] == worker.name


def test_an_exporter_that_hangs(connection: redis.Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    """An exporter that does not answer takes a second at most, after the report is stored, and is logged."""
    environment = {"TEST_NOTES": str(tmp_path / "notes"), "TEST_HANGS": "1"}
    worker = start_worker(options=TRACED, settings=settings(), environment=environment)
    began = time.monotonic()
    worker.signal()
    assert worker.wait() == 0
    assert time.monotonic() - began < 4
    assert report_of(connection, worker).outcome == "clean"
    assert "the spans of its shutdown could not be exported" in worker.output


def test_without_the_sdk_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not imported OpenTelemetry, or not configured its SDK, makes no spans and reads no report."""

    def never() -> ShutdownReport:
        raise AssertionError("the report was read")

    tracing.begin(never)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    tracing.emit_and_flush(1.0)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)
    tracing.emit_and_flush(1.0)
    assert tracing.provider() is None
