"""The state machine of a shutdown: all orders of events, and the single rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from graceful.core import events
from graceful.core.events import Effect
from graceful.core.limits import Budget, Limits
from graceful.core.phases import HookOutcome, JobOutcome, Outcome, Phase, Reason
from graceful.core.records import HookResult, InFlightJob
from graceful.core.shutdown import State, step

BUDGET = Budget(timeout=25, hooks=5, interrupt=3)
ONCE = frozenset({Effect.BOUND_REDIS, Effect.STOP_SCHEDULER, Effect.REQUESTED, Effect.RUN_HOOKS, Effect.STORE})
ENDS = [outcome for outcome in JobOutcome if outcome is not JobOutcome.RUNNING]
SEQUENCE = list(Phase)


def signal_at(at: float) -> events.StopAsked:
    return events.StopAsked(at, Reason.SIGNAL, "SIGTERM")


def after(*course: tuple[float, events.Event], state: State | None = None) -> tuple[State, list[Effect]]:
    """The state after events, each with its instant, and all effects on the way."""
    state = state or State(BUDGET, started_at=0.0)
    effects: list[Effect] = []
    for now, event in course:
        state, more = step(state, event, now)
        effects += more
    return state, effects


class AnyOrder(RuleBasedStateMachine):
    """Events come in any order and at any instants: what must hold all the same."""

    @initialize(timeout=st.floats(0.5, 60), hooks=st.floats(0.01, 0.9), interrupt=st.floats(0.01, 20))
    def start(self, timeout: float, hooks: float, interrupt: float) -> None:
        self.now = 100.0
        self.state = State(Budget(timeout, hooks * timeout, interrupt), started_at=self.now)
        self.counted: dict[Effect, int] = {}
        self.of_this_job: list[Effect] = []
        self.first: Limits | None = None
        self.jobs = 0

    def send(self, event: events.Event) -> tuple[events.Effect, ...]:
        before = self.state
        self.state, effects = step(before, event, self.now)
        for effect in effects:
            self.counted[effect] = self.counted.get(effect, 0) + 1
        if not isinstance(event, events.Stalled):  # Whoever was to kill the job may be what stands.
            self.of_this_job += [effect for effect in effects if effect in (Effect.INTERRUPT, Effect.KILL)]
        assert SEQUENCE.index(self.state.phase) >= SEQUENCE.index(before.phase), "a phase never goes back"
        if before.limits is not None:
            assert self.state.limits is not None, "a shutdown is never called off"
            for limit in ("soft", "hard", "end"):
                assert getattr(self.state.limits, limit) <= getattr(before.limits, limit), "no limit moves out"
        if before.sealed:
            assert self.state == before, "what is sealed stays as it is"
            assert set(effects) <= {Effect.EXIT, Effect.STACKS, Effect.AWAIT_EXIT}
        return effects

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.send(events.Tick())

    @rule(ago=st.floats(0, 2), command=st.booleans())
    def stop(self, ago: float, command: bool) -> None:
        began = self.state.stopping
        if command:
            self.send(events.StopAsked(self.now - ago, Reason.COMMAND))
        else:
            self.send(signal_at(self.now - ago))
        if not began and self.state.limits is not None:
            self.first = self.state.limits

    @rule()
    def quiet(self) -> None:
        self.send(events.QuietAsked())
        assert self.state.quiet or self.state.sealed

    @rule()
    def resume(self) -> None:
        stopping = self.state.stopping
        effects = self.send(events.ResumeAsked())
        assert not (stopping and effects), "nobody is called back who was told to go"
        assert stopping or self.state.sealed or not self.state.quiet

    @precondition(lambda self: self.state.job is None)
    @rule()
    def take_a_job(self) -> None:
        self.jobs += 1
        self.of_this_job = []
        self.send(events.JobTaken(InFlightJob(f"job-{self.jobs}", "f", "default")))

    @precondition(lambda self: self.state.job is not None)
    @rule(outcome=st.sampled_from(ENDS))
    def job_ends(self, outcome: JobOutcome) -> None:
        assert self.state.job is not None
        self.send(events.JobEnded(InFlightJob(self.state.job.id, "f", "default", outcome)))

    @rule(reason=st.sampled_from([reason for reason in Reason if not reason.asked_for]))
    def loop_ends(self, reason: Reason) -> None:
        self.send(events.LoopEnded(reason))
        assert self.state.stopping or self.state.sealed

    @precondition(lambda self: self.state.stopping)
    @rule()
    def torn_down(self) -> None:
        self.send(events.TornDown())

    @precondition(lambda self: self.state.drained_at is not None)
    @rule(outcome=st.sampled_from(HookOutcome))
    def hook(self, outcome: HookOutcome) -> None:
        self.send(events.HookStarted("hook"))
        self.send(events.HookEnded(HookResult("hook", outcome)))

    @precondition(lambda self: self.state.drained_at is not None)
    @rule()
    def hooks_over(self) -> None:
        self.send(events.HooksOver())

    @rule()
    def stalled(self) -> None:
        effects = self.send(events.Stalled("somewhere"))
        assert effects[-1] is Effect.EXIT

    @invariant()
    def nothing_twice(self) -> None:
        assert not {effect for effect in ONCE if self.counted.get(effect, 0) > 1}
        assert len(set(self.of_this_job)) == len(self.of_this_job), "a job is interrupted once, and killed once"

    @invariant()
    def no_job_past_its_limits(self) -> None:
        limits, job = self.state.limits, self.state.job
        if limits is None or job is None or self.state.sealed:
            return
        # After each event the limits have been kept to.
        assert self.now < limits.soft.at or self.state.interrupt_sent
        assert self.now < limits.hard.at or self.state.killed

    @invariant()
    def sealed_says_all(self) -> None:
        assert (self.state.outcome is not None) == (self.state.exit_code is not None) == self.state.sealed
        if self.state.sealed:
            assert self.state.ended_at is not None
            assert all(job.outcome is not JobOutcome.RUNNING for job in self.state.jobs.in_flight)
            ids = [job.id for job in self.state.jobs.in_flight]
            assert len(set(ids)) == len(ids), "a job stands once in the report"


AnyOrder.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_a_stop_without_a_job_asks_for_everything_once_and_logs_last() -> None:
    """The log comes last, since writing to it may block where nobody reads it."""
    state, effects = after((7.0, signal_at(7.0)))
    assert effects == [
        Effect.GUARD,
        Effect.ANNOUNCE,
        Effect.BOUND_REDIS,
        Effect.STOP_SCHEDULER,
        Effect.WRITE_JOURNAL,
        Effect.REQUESTED,
    ]
    assert (state.phase, state.reason, state.signal) == (Phase.REQUESTED, Reason.SIGNAL, "SIGTERM")


def test_a_stop_during_a_job_drains_it() -> None:
    """The report shows the job in flight from the first signal on."""
    job = InFlightJob("a", "f", "default")
    state, _ = after((1.0, events.JobTaken(job)), (2.0, signal_at(2.0)))
    assert (state.phase, state.jobs.in_flight) == (Phase.DRAINING, (job,))
    state, _ = after((5.0, events.JobEnded(InFlightJob("a", "f", "default", JobOutcome.FINISHED))), state=state)
    assert state.jobs.finished == 1
    assert state.jobs.in_flight[0].seconds == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("instants", "effect", "at"),
    [
        ([0.0], Effect.INTERRUPT, 17.0),
        ([0.0], Effect.KILL, 20.0),
        ([0.0, 2.0], Effect.INTERRUPT, 2.0),
        ([0.0, 2.0], Effect.KILL, 5.0),
        ([0.0, 2.0, 4.0], Effect.KILL, 4.0),
        ([0.0, 0.5, 0.9], Effect.INTERRUPT, 17.0),
    ],
)
def test_limits_are_kept_to(instants: list[float], effect: Effect, at: float) -> None:
    """The first signal starts the grace period, the second interrupts at once, the third kills at once."""
    state, _ = after((0.0, events.JobTaken(InFlightJob("a", "f", "default"))))
    course = sorted(
        [*((each, signal_at(each)) for each in instants), *((t / 10, events.Tick()) for t in range(250))],
        key=lambda each: each[0],
    )
    seen = {}
    for now, event in course:
        state, effects = step(state, event, now)
        for each in effects:
            seen.setdefault(each, now)
    assert seen[effect] == pytest.approx(at)


def test_a_job_that_redis_was_not_told_about_stays_in_flight() -> None:
    """It is requeued by whoever comes after, so the worker must know that it still holds it."""
    unknown = InFlightJob("a", "f", "default", JobOutcome.UNKNOWN)
    state, _ = after((0.0, events.JobTaken(unknown)), (1.0, signal_at(1.0)), (2.0, events.JobEnded(unknown)))
    assert state.job is not None
    state, _ = after((3.0, events.TornDown()), (3.0, events.HooksOver()), state=state)
    assert (state.outcome, state.exit_code) == (Outcome.INTERRUPTED, os.EX_TEMPFAIL)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.BURST, os.EX_OK),
        (Reason.MAX_JOBS, os.EX_OK),
        (Reason.IDLE, os.EX_OK),
        (Reason.ERROR, os.EX_SOFTWARE),
        (Reason.REDIS_LOST, os.EX_UNAVAILABLE),
    ],
)
def test_a_loop_that_ends_by_itself_is_a_shutdown_too(reason: Reason, code: int) -> None:
    """Hooks and report come on every way out."""
    state, effects = after((1.0, events.LoopEnded(reason)), (2.0, events.TornDown()), (3.0, events.HooksOver()))
    assert (state.reason, state.exit_code) == (reason, code)
    assert effects.count(Effect.RUN_HOOKS) == effects.count(Effect.STORE) == 1


def test_an_error_during_the_drain_becomes_the_reason() -> None:
    """A crash is not hidden by the signal that came before it; nothing is announced a second time."""
    ended = events.LoopEnded(Reason.REDIS_LOST, "ended by ConnectionError")
    state, effects = after((1.0, signal_at(1.0)), (2.0, ended))
    assert (state.reason, state.error) == (Reason.REDIS_LOST, "ended by ConnectionError")
    assert effects.count(Effect.REQUESTED) == effects.count(Effect.GUARD) == 1


def test_a_stop_after_the_loop_ended_does_not_become_the_reason() -> None:
    """A burst that was over anyway is reported as one."""
    state, effects = after((1.0, events.LoopEnded(Reason.BURST)), (1.1, signal_at(1.1)))
    assert state.reason is Reason.BURST
    assert state.signal is None
    assert effects.count(Effect.REQUESTED) == 1


def test_the_hooks_have_no_more_than_their_own_time() -> None:
    """A job that ends early leaves its time to nobody: the process is over hooks' time after the teardown."""
    state, _ = after((0.0, signal_at(0.0)), (1.0, events.TornDown()))
    assert state.end(1.0).at == pytest.approx(6.0)


def test_a_stall_seals_and_ends() -> None:
    """The guardian seals the report as it is, with the place where the main thread stood."""
    job = InFlightJob("a", "f", "default")
    state, effects = after((0.0, events.JobTaken(job)), (1.0, signal_at(1.0)), (1.5, events.Stalled("in a lock")))
    assert effects[-3:] == [Effect.KILL, Effect.STORE, Effect.EXIT]
    assert (state.outcome, state.exit_code, state.forced) == (Outcome.FORCED, os.EX_SOFTWARE, "in a lock")
    assert state.jobs.in_flight[0].outcome is JobOutcome.UNKNOWN


@pytest.mark.parametrize("event", [events.TornDown(), events.HooksOver()])
def test_a_thread_that_gets_on_after_a_stall_waits_for_the_end(event: events.Event) -> None:
    """It must not end the process while the guardian stores the report."""
    _, effects = after((0.0, signal_at(0.0)), (1.0, events.Stalled("in a hook")), (1.1, event))
    assert effects[-1] is Effect.AWAIT_EXIT


def test_a_stall_while_the_job_is_being_killed_kills_it() -> None:
    """The thread that was to kill it may be the one that stands, in a log that nobody reads."""
    job = InFlightJob("a", "f", "default")
    state, effects = after((0.0, events.JobTaken(job)), (0.0, signal_at(0.0)), (21.0, events.Tick()))
    assert state.killed
    _, effects = after((24.0, events.Stalled("in a log")), state=state)
    assert effects == [Effect.KILL, Effect.STORE, Effect.EXIT]


def test_a_stop_between_the_fetch_and_the_start_of_a_job_drains_it() -> None:
    """Another thread may take the stop in just then: the report names the job all the same."""
    job = InFlightJob("a", "f", "default")
    state, _ = after((0.0, signal_at(0.0)), (0.1, events.JobTaken(job)))
    assert (state.phase, state.jobs.in_flight) == (Phase.DRAINING, (job,))


def test_a_description_does_not_bring_an_ended_job_back() -> None:
    """What comes late changes nothing of a job that has ended, or that Redis could not be told about."""
    job = InFlightJob("a", "f", "default")
    unknown = InFlightJob("a", "f", "default", JobOutcome.UNKNOWN)
    for ended in (unknown, InFlightJob("a", "f", "default", JobOutcome.FINISHED)):
        state, _ = after((0.0, events.JobTaken(job)), (0.0, signal_at(0.0)), (1.0, events.JobEnded(ended)))
        assert after((2.0, events.JobDescribed(job)), state=state)[0] == state


def test_a_stall_after_the_report_was_sealed_keeps_its_exit_code() -> None:
    """What hangs then is a log or a receiver of a signal: the report is stored, and tells the truth."""
    state, effects = after(
        (0.0, signal_at(0.0)), (1.0, events.TornDown()), (1.0, events.HooksOver()), (9.0, events.Stalled("log"))
    )
    assert (state.exit_code, effects[-1]) == (os.EX_OK, Effect.EXIT)
    assert effects.count(Effect.STORE) == 1


@given(st.lists(st.floats(0, 50), min_size=1, max_size=6))
def test_signals_in_any_order_of_recording_end_alike(instants: list[float]) -> None:
    """Two threads may record signals out of order: the limits come from when they were sent."""
    now = max(instants)
    ascending, _ = after(*((now, signal_at(each)) for each in sorted(instants)))
    end = min(instants) + BUDGET.timeout
    assert ascending.limits is not None
    assert ascending.limits.end.at == pytest.approx(end)


@pytest.mark.parametrize("reason", [Reason.MEMORY, Reason.AGE, Reason.MAX_JOBS, Reason.BURST, Reason.IDLE])
def test_a_worker_that_ends_of_itself_keeps_its_connections(reason: Reason) -> None:
    """Nobody waits for it, so no Redis command is bounded; it ends clean with exit code 0."""
    state, effects = after((1.0, events.LoopEnded(reason)), (2.0, events.TornDown()), (3.0, events.HooksOver()))
    assert Effect.BOUND_REDIS not in effects
    assert (state.reason, state.outcome, state.exit_code) == (reason, Outcome.CLEAN, os.EX_OK)


def test_the_largest_horse_is_kept() -> None:
    """The peak of the worker's horses is the largest; a job without a horse leaves it alone."""
    job = InFlightJob("a", "f", "default", JobOutcome.FINISHED)
    state, _ = after((0.0, events.JobEnded(job)))
    assert state.horse_peak is None
    peaks = [events.JobEnded(job, peak) for peak in (5, 9, 7, None)]
    state, _ = after(*((float(now), event) for now, event in enumerate(peaks)))
    assert state.horse_peak == 9
