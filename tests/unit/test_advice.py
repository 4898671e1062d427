"""Advice: exact sentences for given figures, silence where there are too few, and never an error."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.records import Grace
from graceful.reports import platforms
from graceful.reports.advice import Advice, advise
from graceful.reports.figures import Figures, FunctionCost, HookRuns, Need
from graceful.reports.platforms import Platform, platform_of

SINCE, UNTIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC)
BASIS = "From 200 shutdowns with this grace period, between 2026-03-01 and 2026-03-30."


def some_figures(**changes: Any) -> Figures:
    """200 shutdowns on Kubernetes, 9 of 428 jobs interrupted; the longest needed 39 s."""
    found = Figures(
        shutdowns=200,
        since=SINCE,
        until=UNTIL,
        grace=Grace(25.0, 5.0, 3.0),
        needs=(*[Need(1.5)] * 197, Need(36.0), Need(38.0), Need(39.0)),
        hooks=(*[0.2] * 150, *[2.0] * 50),
        jobs=428,
        interrupted=9,
        platform=Platform.KUBERNETES,
    )
    return replace(found, **changes)


def only(advice: tuple[Advice, ...], about: str = "grace") -> Advice:
    (found,) = advice
    assert found.about == about
    return found


def test_the_grace_period_that_would_have_interrupted_none() -> None:
    """With percentiles, share and count, what would have been enough, and what Kubernetes has to wait then."""
    found = only(advise(some_figures()))
    assert found.warning
    assert found.text == (
        "Drain p99 is 36 s, hooks p99 2 s: with a GRACEFUL_TIMEOUT of 25 s, 2.1 % of the jobs in flight were "
        "interrupted (9 of 428). 47 s would have interrupted none. With a GRACEFUL_TIMEOUT of 47 s, Kubernetes' "
        "terminationGracePeriodSeconds must be at least 52 (30 unless set; a preStop hook counts against it)."
    )
    assert found.basis == BASIS


def test_a_drain_that_was_cut_off_is_a_lower_bound() -> None:
    """Where a job was cut off and nothing tells how long it would have taken, the sentences say "at least"."""
    needs = (*[Need(1.5)] * 197, Need(20.0, at_least=True), Need(30.0), Need(31.0, at_least=True))
    text = only(advise(some_figures(needs=needs))).text
    assert text.startswith("Drain p99 is at least 20 s, hooks p99 2 s: ")
    assert "At least 39 s would have been needed to interrupt none: in 2 shutdowns nothing tells" in text
    # Above the percentile it does not matter for that.
    above = (*[Need(1.5)] * 199, Need(31.0, at_least=True))
    assert only(advise(some_figures(needs=above))).text.startswith("Drain p99 is 1.5 s")


def test_jobs_that_were_cut_off_at_the_soft_limit() -> None:
    """Where all that is known is that the soft limit was too short, no number is made up."""
    needs = (*[Need(1.5)] * 199, Need(17.1, at_least=True))
    text = only(advise(some_figures(needs=needs))).text
    assert text.endswith("How much more time they need is not known: they were cut off.")


def test_a_job_of_an_hour_is_no_reason_for_a_grace_period_of_an_hour() -> None:
    """Where no deploy would wait for so long, the advice is ``resumable``."""
    text = only(advise(some_figures(needs=(*[Need(1.0)] * 199, Need(3600.0))))).text
    assert text.endswith(
        "The longest would have needed 3600 s after the signal, which is too long for a deploy: make it resumable."
    )


def test_all_is_well() -> None:
    """Without an interrupted job it says so, and is no warning."""
    found = only(advise(some_figures(interrupted=0, needs=(Need(3.14),) * 200)))
    assert not found.warning
    assert found.text == "No job was interrupted: drain p99 is 3.1 s, hooks p99 2 s, of a GRACEFUL_TIMEOUT of 25 s."
    assert found.basis == BASIS


def test_silent_where_there_are_too_few() -> None:
    """Fewer than 20 shutdowns, 20 runs of a hook, or 3 interruptions of a function say nothing."""
    few = some_figures(
        shutdowns=19,
        functions=(FunctionCost("f", 9),),
        hook_runs=(HookRuns("h", 19, 19, 1.0, None), HookRuns("h", 100, 1, 1.0, None)),
    )
    assert advise(few) == ()
    assert advise(Figures()) == ()
    assert only(advise(some_figures(functions=(FunctionCost("f", 2),))))


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        (
            Platform.KUBERNETES,
            "With a GRACEFUL_TIMEOUT of 25 s, Kubernetes' terminationGracePeriodSeconds must be at least 30",
        ),
        (Platform.HEROKU, "Heroku waits 30 s, which is enough"),
        (Platform.ECS, "ECS' stopTimeout must be at least 30 (30 unless set; Fargate allows 120 at most)"),
        (Platform.SYSTEMD, "systemd's TimeoutStopSec= must be at least 30 (90 unless set)"),
        (Platform.UNKNOWN, "the platform must wait at least 30 s before SIGKILL (Docker waits 10"),
    ],
)
def test_killed_because_the_grace_period_was_over(platform: Platform, words: str) -> None:
    """A worker that its platform killed is a warning at once, with the platform's own line."""
    found = only(advise(Figures(grace=Grace(25.0, 5.0, 3.0), grace_over=2, platform=platform)), "killed")
    assert found.warning
    assert found.text.startswith("2 workers were probably killed because the platform's grace period was over. ")
    assert words in found.text


def test_heroku_waits_no_longer() -> None:
    """Where the platform's time is fixed, the advice is not to ask for more."""
    text = only(advise(some_figures(platform=Platform.HEROKU))).text
    assert text.endswith(
        "47 s would have interrupted none. Heroku waits 30 s and no longer: GRACEFUL_TIMEOUT can be 25 at most."
    )


def test_jobs_that_would_gain_most_from_resumable() -> None:
    """The three worst functions, with how often they were interrupted and what they had to repeat."""
    functions = (
        FunctionCost("shop.jobs.rebuild\x1b", 14, 312.4),
        FunctionCost("shop.jobs.mail", 5),
        FunctionCost("shop.jobs.sync", 3, 20.0),
        FunctionCost("shop.jobs.fourth", 3, 20.0),
    )
    _grace, found = advise(some_figures(functions=functions))
    assert found.about == "jobs"
    assert found.text == (
        r"These jobs were interrupted most and started again from the beginning: shop.jobs.rebuild\x1b (14 times, "
        "312 s of work repeated), shop.jobs.mail (5 times), shop.jobs.sync (3 times, 20 s of work repeated). "
        "resumable() keeps what they have done."
    )


@pytest.mark.parametrize(
    ("p95", "words"),
    [
        (None, "It never succeeded: see where it hangs in the reports' stacks."),
        (0.3, "Otherwise p95 is 0.3 s: it hangs rather than being slow, and more time would not help."),
        (1.9, "Otherwise p95 is 1.9 s: raise its timeout, and GRACEFUL_HOOKS_TIMEOUT with it, or make it faster."),
    ],
)
def test_a_hook_that_times_out(p95: float | None, words: str) -> None:
    """Whether a hook needs more time, or hangs, is told by the runs that succeeded."""
    found = only(advise(Figures(hook_runs=(HookRuns("shop.leave", 400, 12, 2.0, p95),))), "hooks")
    assert found.text == f"The hook shop.leave timed out 12 times (3.0 %), after 2 s on average. {words}"
    assert found.basis == "From 400 runs of it."


@pytest.mark.parametrize(
    ("environment", "platform"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "INVOCATION_ID": "1"}, Platform.KUBERNETES),
        ({"DYNO": "worker.1"}, Platform.HEROKU),
        ({"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"}, Platform.ECS),
        ({"FLY_MACHINE_ID": "e784"}, Platform.FLY),
        ({"RENDER": "true"}, Platform.RENDER),
        ({"INVOCATION_ID": "1"}, Platform.SYSTEMD),
        ({"DYNO": ""}, Platform.UNKNOWN),
    ],
)
def test_the_platform_is_known_by_its_variables(
    environment: dict[str, str], platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each platform is recognised by the variable that it sets itself."""
    monkeypatch.setattr(platforms, "DOCKER_FILE", tmp_path / "dockerenv")  # The tests may run in a container.
    assert platform_of(environment) is platform


seconds = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 0.05, 17.0, 25.0])
maybe_seconds = st.none() | seconds
counts = st.integers(0, 10**12)
needs = st.lists(st.builds(Need, seconds, st.booleans()), max_size=30).map(tuple)
some = st.builds(
    Figures,
    shutdowns=counts,
    since=st.none() | st.just(SINCE),
    until=st.none() | st.just(UNTIL),
    grace=st.builds(Grace, maybe_seconds, maybe_seconds, maybe_seconds),
    needs=needs,
    hooks=st.lists(seconds, max_size=30).map(tuple),
    jobs=counts,
    interrupted=counts,
    grace_over=counts,
    functions=st.lists(st.builds(FunctionCost, st.text(), counts, seconds), max_size=5).map(tuple),
    hook_runs=st.lists(st.builds(HookRuns, st.text(), counts, counts, seconds, maybe_seconds), max_size=5).map(tuple),
    platform=st.sampled_from(Platform),
)


@given(some)
def test_never_an_error_whatever_the_figures(found: Figures) -> None:
    """Any figures, absurd ones included, give sentences that a terminal can show."""
    for each in advise(found):
        assert each.text.isprintable()
        assert each.basis.isprintable()


@given(some)
def test_no_advice_is_to_wait_less(found: Figures) -> None:
    """What would have interrupted none is never below the grace period that interrupted some."""
    for each in advise(found):
        if "would have interrupted none" in each.text:
            recommended = float(each.text.split(" s would have interrupted none")[0].rsplit(" ", 1)[1])
            assert recommended > (found.grace.period or 0.0)
