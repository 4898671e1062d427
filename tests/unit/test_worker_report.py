"""Where a sealed report goes when there is hardly any time left for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from graceful import conf
from graceful.core.deadline import Deadline
from graceful.core.events import HooksOver, LoopEnded, TornDown
from graceful.core.limits import Budget
from graceful.core.phases import Reason
from graceful.core.shutdown import State, step
from graceful.reports import archive
from graceful.reports.builder import WorkerIdentity
from graceful.reports.spool import Spool
from graceful.worker.shutdown.report import WorkerReport


class Silent:
    """A journal writer and heartbeat in one, of a server that does not take anything."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.spooled: list[int] = []

    def write(self, report: Any) -> None:
        self.spooled.append(len(self.spool.entries()))
        raise OSError("no answer")


def sealed() -> State:
    state = State(Budget(25, 5, 3), started_at=0.0)
    for event in (LoopEnded(Reason.REDIS_LOST), TornDown(), HooksOver()):
        state, _ = step(state, event, 1.0)
    return state


@pytest.mark.parametrize(("left", "before"), [(0.05, 1), (3.0, 0)])
@pytest.mark.parametrize("archived", [True, False])
def test_a_late_report_is_spooled_before_anything_that_may_wait(
    left: float, before: int, archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be ended while Redis or the database is waited for; a report that was archived is not kept."""
    spool = Spool(tmp_path / "spool")
    silent = Silent(spool)
    monkeypatch.setattr(archive, "store", lambda report, *, seconds: archived)
    settings = dataclasses.replace(conf.settings(), spool_dir=spool.directory)
    report = WorkerReport(WorkerIdentity("w", ("default",), "a.Worker"), settings, silent, silent)  # type: ignore[arg-type]
    report.store(sealed(), Deadline.after(left))
    assert silent.spooled == [before]
    assert [each.exit_code for each in spool.entries()] == ([] if archived else [69])
