"""The log line of each shutdown, and the words for lengths of time."""

from __future__ import annotations

import logging

import pytest

from graceful.core.phases import JobOutcome, Outcome, Reason
from graceful.core.records import JobTally, Spans
from graceful.reports.line import log_extra, log_line, log_shutdown
from graceful.reports.text import seconds_text
from tests.db.samples import HOOKS, a_clean_report, a_report


def test_the_line_of_a_clean_shutdown() -> None:
    """The line names worker, outcome, duration, signal, jobs, hooks and exit code."""
    report = a_clean_report(seconds=Spans(total=2.314), hooks=HOOKS[:1] * 4)
    assert log_line(report) == (
        "Shutdown of worker web-1.4242: clean after 2.31 s "
        "(SIGTERM; 3 jobs finished, 0 failed; hooks 4/4 ok; exit code 0)"
    )


def test_the_line_names_what_went_wrong() -> None:
    """The line counts interrupted jobs and failed hooks."""
    assert log_line(a_report()) == (
        "Shutdown of worker web-1.4242: hooks failed after 14.25 s "
        "(SIGTERM; 41 jobs finished, 1 failed; 1 interrupted; hooks 1/3 ok; exit code 70)"
    )


def test_the_line_counts_jobs_that_are_still_held() -> None:
    """A job whose outcome is not known yet is counted, so that "interrupted" has its reason in the line."""
    held = a_report().jobs.in_flight[0]._replace(outcome=JobOutcome.UNKNOWN)
    report = a_report(outcome=Outcome.INTERRUPTED, exit_code=75, hooks=(), jobs=JobTally(finished=1, in_flight=(held,)))
    assert "1 job finished, 0 failed; 1 unknown; no hooks; exit code 75" in log_line(report)


def test_the_line_of_a_worker_that_nobody_saw_end() -> None:
    """The line of a killed worker leaves out what is unknown."""
    report = a_report(
        reason=Reason.KILLED,
        signal=None,
        outcome=Outcome.KILLED,
        exit_code=None,
        seconds=Spans(),
        hooks=(),
        jobs=JobTally(finished=1),
    )
    assert log_line(report) == "Shutdown of worker web-1.4242: killed (killed; 1 job finished, 0 failed; no hooks)"
    assert log_line(a_report(reason=None, signal=None, outcome=None))


def test_a_name_cannot_forge_a_line() -> None:
    """A line break in a name is escaped: the line stays one line."""
    line = log_line(a_report(worker="w\nERROR forged\u2028\u202e"))
    assert len(line.splitlines()) == 1
    assert "w\\nERROR forged\\u2028\\u202e" in line


@pytest.mark.parametrize(
    ("report", "level"), [(a_clean_report(), logging.INFO), (a_report(), logging.WARNING)], ids=["clean", "not clean"]
)
def test_level_and_facts(caplog: pytest.LogCaptureFixture, report: object, level: int) -> None:
    """A clean shutdown is logged at INFO, any other at WARNING; the facts are attributes of the record."""
    with caplog.at_level(logging.INFO, "graceful.shutdown"):
        log_shutdown(report)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage() == log_line(report)  # type: ignore[arg-type]
    facts = log_extra(report)  # type: ignore[arg-type]
    assert {key: getattr(record, key) for key in facts} == facts
    assert facts["shutdown_worker"] == "web-1.4242"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.0094, "9.4 ms"),
        (0.0096, "0.01 s"),
        (99.994, "99.99 s"),
        (99.996, "1 min 40 s"),
        (119.7, "2 min 0 s"),
        (7384.2, "123 min 4 s"),
    ],
)
def test_lengths_of_time(seconds: float | None, words: str) -> None:
    """Durations are shown in ms, s or min, with sensible precision."""
    assert seconds_text(seconds) == words
