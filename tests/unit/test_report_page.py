"""A report as a page tells and draws it: pure functions of the record."""

from __future__ import annotations

import time
from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.post_mortem import Findings, closed
from graceful.core.records import Grace, HookResult, InFlightJob, JobTally, ShutdownReport, Spans
from graceful.labels import LABELS, label, stored_label
from graceful.reports.page import report_page
from graceful.reports.remedies import remedies
from graceful.reports.story import place_of, progress_text, story
from graceful.reports.text import short_name
from graceful.reports.timeline import timeline
from tests.db.samples import MIDNIGHT, a_clean_report, a_report, reports

ONE_O_CLOCK = MIDNIGHT + timedelta(hours=1)
GRACE = Grace(25.0, 5.0, 3.0)


def interrupted(progress: int | None) -> ShutdownReport:
    job = InFlightJob("job-1", "shop.f", "default", JobOutcome.INTERRUPTED, 12.5, 1, progress_done=progress)
    return a_clean_report(outcome=Outcome.INTERRUPTED, jobs=JobTally(in_flight=(job,)))


def a_killed_report(seconds: float = 25.0, **changes: Any) -> ShutdownReport:
    """A report that a reaper has closed, of a worker that was draining; killed ``seconds`` after the request."""
    open_report = a_report(
        outcome=None,
        exit_code=None,
        phase=Phase.DRAINING,
        drained_at=None,
        ended_at=None,
        seconds=Spans(),
        hooks=(),
        notes="",
        grace=GRACE,
        jobs=JobTally(5, 0, (InFlightJob("job-1", "shop.jobs.rebuild", "default"),)),
    )
    beat = (ONE_O_CLOCK + timedelta(seconds=seconds)).timestamp()
    job = InFlightJob("job-1", "shop.jobs.rebuild", "default", JobOutcome.KILLED, interruptions=1, progress_done=39)
    return closed(open_report._replace(**changes), Findings(ONE_O_CLOCK, "worker w2", beat, job, False))


@pytest.mark.parametrize("words", [Outcome, Reason, Phase, HookOutcome, JobOutcome])
def test_every_word_has_a_label(words: type[StrEnum]) -> None:
    """Each outcome, reason and phase has a label for people, in the language of the request."""
    assert set(LABELS[words]) == set(words)
    assert all(label(word) and "_" not in label(word) for word in words)


def test_a_stored_word_of_a_later_version() -> None:
    """A word that this version does not know is shown as it is, in one harmless line; an empty one is empty."""
    assert stored_label(Outcome, "hooks_failed") == "hooks failed"
    assert stored_label(Outcome, "later\x1b[31m") == "later\\x1b[31m"
    assert stored_label(Outcome, "") == ""


def test_the_story_of_a_shutdown() -> None:
    """The story tells the signal, each job, what went wrong with a hook and where, and how much time was left."""
    traceback = '  File "/srv/shop/hooks.py", line 7, in close\n  File "/usr/lib/python3.11/queue.py", line 42, in get'
    report = a_report(
        grace=GRACE,
        jobs=JobTally(
            1, 0, (InFlightJob("a", "shop.jobs.mail", "mail", JobOutcome.FINISHED, 4.1), a_report().jobs.in_flight[0])
        ),
        hooks=(
            HookResult("y", HookOutcome.TIMED_OUT, 5.0, 5.0, traceback=traceback),
            HookResult("z", HookOutcome.FAILED, 0.1, 5.0, error="OSError: no", traceback=traceback),
            HookResult("ok", HookOutcome.OK, 0.5),
        ),
    )
    assert story(report) == (
        "SIGTERM at 01:00:00.",
        "Job shop.jobs.mail finished after 4.10 s.",
        (
            "Job shop.jobs.rebuild_index was interrupted after 12.50 s and requeued at the front of its queue. "
            "It had done 39 of 200."
        ),
        "Exit hook y timed out after 5.00 s at queue.py:42.",
        "Exit hook z failed after 0.10 s at queue.py:42: OSError: no",
        "1 exit hook succeeded, in 0.50 s.",
        "The worker exited with code 70 after 14.25 s, 10.75 s before its deadline.",
    )


def test_the_story_of_a_killed_worker() -> None:
    """Of a killed worker the story tells when it was last seen, and no exit code."""
    assert story(a_killed_report()) == (
        "SIGTERM at 01:00:00.",
        "Job shop.jobs.rebuild was killed and requeued at the front of its queue. It had done 39 items.",
        "It was last seen alive at 01:00:25.",
    )
    unasked = a_killed_report(requested_at=None, jobs=JobTally())
    assert story(unasked)[0] == "The worker was killed without having been asked to stop."
    found = closed(a_report(outcome=None), Findings(ONE_O_CLOCK, "worker w2", None, None, False))
    assert story(found)[-1] == "It was found dead at 01:00:00."


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.BURST, "the burst was over"),
        (Reason.MAX_JOBS, "maximum number of jobs"),
        (Reason.IDLE, "idle for its maximum time"),
        (Reason.COMMAND, "shutdown command"),
        (Reason.REDIS_LOST, "Redis could not be used"),
        (Reason.ERROR, "An error ended"),
        (Reason.EXIT, "The shutdown began"),
    ],
)
def test_the_story_begins_with_the_reason(reason: Reason, words: str) -> None:
    """Without a signal the first sentence tells the reason; no job in flight is said so."""
    told = story(a_clean_report(reason=reason, signal=None, jobs=JobTally()))
    assert words in told[0]
    assert told[1] == "No job was in flight."


@pytest.mark.parametrize("outcome", JobOutcome)
@pytest.mark.parametrize("seconds", [None, 1.5])
def test_the_story_has_a_sentence_for_every_end_of_a_job(outcome: JobOutcome, seconds: float | None) -> None:
    """Every outcome of a job, with and without its duration, has a sentence."""
    told = story(a_report(jobs=JobTally(in_flight=(InFlightJob("id", "f", "q", outcome, seconds),))))
    assert told[1].startswith("Job f ")


def test_the_story_is_bounded() -> None:
    """Of a thousand jobs and hooks twenty are told, and the rest is counted."""
    report = a_report(
        jobs=JobTally(in_flight=tuple(InFlightJob(f"j{n}", "f", "q", JobOutcome.KILLED) for n in range(1000))),
        hooks=tuple(HookResult(f"h{n}", HookOutcome.FAILED) for n in range(1000)),
    )
    told = story(report)
    assert len(told) == 1 + 21 + 21 + 1
    assert "980 more jobs were in flight." in told
    assert "980 more hooks went wrong." in told


@given(reports())
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_report_has_a_page(report: ShutdownReport) -> None:
    """Whatever a report holds, its page can be made, without control characters, and drawn within its frame."""
    page = report_page(report)
    assert all(sentence.isprintable() for sentence in (page.title, *page.story, *page.remedies))
    for bar in page.timeline.bars:
        assert 0 <= float(bar.start[:-1]) <= 100
        assert 0 < float(bar.width[:-1]) <= 100
    for limit in page.timeline.limits:
        assert 0 <= float(limit.at[:-1]) <= 100


def test_a_hostile_traceback_costs_no_time() -> None:
    """Looking for the place in a traceback takes linear time."""
    began = time.perf_counter()
    for hostile in ("\n" * 16_000, " " * 16_000, '  File "' * 2_000, 'File "a", line ' * 1_000):
        assert place_of(hostile) == ""
    assert time.perf_counter() - began < 1


def test_the_deadline_is_a_line() -> None:
    """Deadline and soft limit are lines at their place on the axis."""
    drawn = timeline(a_report(grace=GRACE))
    assert [(limit.kind, limit.label, limit.at) for limit in drawn.limits] == [
        ("soft", "soft limit, 17.00 s", "68.00%"),
        ("deadline", "deadline, 25.00 s", "99.60%"),
    ]
    drain = drawn.bars[0]
    assert (drain.kind, drain.width) == ("drain", "50.00%")


def test_a_deadline_far_away_is_told_not_drawn() -> None:
    """A shutdown that took less than a tenth of its grace period fills the picture; the headroom is in words."""
    drawn = timeline(a_clean_report(grace=GRACE, seconds=Spans(drain=0.5, hooks=0.5, total=1.0)))
    assert drawn.limits == ()
    assert drawn.headroom == "Ended 24.00 s before the deadline of 25.00 s."
    assert drawn.bars[0].width == "50.00%"


def test_an_end_past_the_deadline_is_drawn_past_the_line() -> None:
    """A shutdown that outlasted its deadline is drawn beyond the line."""
    drawn = timeline(a_report(grace=GRACE, seconds=Spans(drain=25.0, hooks=25.0, total=50.0)))
    assert drawn.limits[-1].at == "50.00%"


@pytest.mark.parametrize("reason", [Reason.BURST, Reason.MAX_JOBS, Reason.IDLE])
def test_no_deadline_where_nobody_asked_for_the_end(reason: Reason) -> None:
    """A worker that ends by itself has no deadline."""
    drawn = timeline(a_clean_report(reason=reason, signal=None, grace=GRACE))
    assert drawn.bars
    assert (drawn.limits, drawn.headroom) == ((), "")


def test_what_is_known_of_a_killed_worker_is_drawn() -> None:
    """A killed worker is drawn from the request to its last heartbeat, with the deadline it ran into."""
    drawn = timeline(a_killed_report(20.0))
    assert [(bar.kind, bar.width) for bar in drawn.bars] == [("alive", "80.00%")]
    assert drawn.limits[-1].kind == "deadline"
    drained = timeline(a_killed_report(20.0, drained_at=ONE_O_CLOCK + timedelta(seconds=10)))
    assert [(bar.kind, bar.start, bar.width) for bar in drained.bars] == [
        ("drain", "0.00%", "40.00%"),
        ("alive", "40.00%", "40.00%"),
    ]
    assert timeline(a_killed_report(requested_at=None)).bars == ()


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (a_killed_report(), "The platform waits for less time than GRACEFUL_TIMEOUT"),
        (a_killed_report(2.0), "SIGKILL came soon after"),
        (a_killed_report(requested_at=None), "SIGKILL came without SIGTERM"),
        (interrupted(progress=None), "A job took longer than the soft limit"),
        (a_report(outcome=Outcome.FORCED), "what did not end"),
        (a_report(outcome=Outcome.CRASHED, reason=Reason.ERROR), "Read the error in the notes"),
        (a_report(outcome=Outcome.CRASHED, reason=Reason.REDIS_LOST), "Check Redis"),
        (a_report(), "An exit hook failed"),
        (a_report(), "An exit hook timed out"),
    ],
)
def test_what_to_do(report: ShutdownReport, words: str) -> None:
    """Each symptom has its remedy."""
    assert any(words in each for each in remedies(report))


def test_nothing_to_do_after_a_clean_shutdown() -> None:
    """A clean shutdown asks for nothing."""
    assert remedies(a_clean_report()) == ()


def test_a_resumable_job_needs_no_remedy() -> None:
    """A job that stopped between two items of ``resumable`` goes on there: it did not take too long."""
    assert remedies(interrupted(progress=39)) == ()


@pytest.mark.parametrize(
    ("done", "total", "words"), [(None, None, ""), (None, 9, ""), (1, None, "1 item"), (39, 200, "39 of 200")]
)
def test_progress_in_words(done: int | None, total: int | None, words: str) -> None:
    """Progress is told with the total where that is known."""
    assert progress_text(InFlightJob("i", "f", "q", progress_done=done, progress_total=total)) == words


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("0be48186af554d0d9697287b88b4fe9f", "0be48186"),
        ("web-1.4242", "web-1.4242"),
        ("a" * 33, "a" * 33),
        ("x" * 99, "x" * 57 + "..."),
    ],
)
def test_only_rqs_own_names_are_shortened(name: str, short: str) -> None:
    """RQ's 32 hexadecimal digits are shown by their first 8; a name that somebody chose is shown whole."""
    assert short_name(name) == short
