"""The times in a report: how long things took is no matter of the wall clock."""

from __future__ import annotations

import time

import pytest
import redis
from rq import Queue

from tests.conftest import StartWorker
from tests.support import jobs, shifted_clock
from tests.support.reports import report_of
from tests.support.waiting import wait_until

HOURS = 7_200


@pytest.mark.parametrize("shift", [-HOURS, HOURS])
@pytest.mark.parametrize("when", ["during the drain", "in an exit hook"])
def test_a_clock_that_is_set_in_the_middle(
    when: str, shift: int, connection: redis.Redis, queue: Queue, start_worker: StartWorker
) -> None:
    """Spans are measured by the monotonic clock, and the instants of a report stay in their order."""
    hooks = ["tests.support.shifted_clock.shift"] if when == "in an exit hook" else []
    job = queue.enqueue(shifted_clock.shift_in_a_job if when == "during the drain" else jobs.until_released, "go")
    worker = start_worker(
        options=["--worker-class", "rq.SimpleWorker"],
        settings={"GRACEFUL_EXIT_HOOKS": hooks},
        environment={"TEST_SHIFT": str(shift)},
    )
    wait_until(lambda: connection.hget(jobs.PIDS, job.id), 10, lambda: worker.output)
    began = time.monotonic()
    worker.signal()
    worker.wait_output("shutdown requested")
    connection.rpush("go", 1)
    assert worker.wait() == 0, worker.output
    took = time.monotonic() - began
    report = report_of(connection, worker)
    assert report.requested_at
    assert report.drained_at
    assert report.ended_at
    assert report.started_at <= report.requested_at <= report.drained_at <= report.ended_at
    spans = report.seconds
    assert spans.drain is not None
    assert spans.hooks is not None
    assert spans.total is not None
    assert 0 <= spans.drain <= spans.total <= took
    assert 0 <= spans.hooks <= spans.total
    assert (report.drained_at - report.requested_at).total_seconds() == pytest.approx(spans.drain, abs=0.001)
    assert (report.ended_at - report.requested_at).total_seconds() == pytest.approx(spans.total, abs=0.001)
