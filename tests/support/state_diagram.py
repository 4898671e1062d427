"""Draws the phases of a shutdown out of the state machine itself, for docs/architecture.md.

``python -m tests.support.state_diagram`` puts the diagram into the page, between its two marks.
"""

from __future__ import annotations

import pathlib
from collections import deque
from collections.abc import Iterator

from graceful.core import events
from graceful.core.events import Effect
from graceful.core.limits import Budget
from graceful.core.phases import HookOutcome, JobOutcome, Phase, Reason
from graceful.core.records import HookResult, InFlightJob
from graceful.core.shutdown import State, step

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
BEGIN, END = "<!-- state diagram: begin -->", "<!-- state diagram: end -->"
BUDGET = Budget(timeout=25, hooks=5, interrupt=3)
JOB = InFlightJob("job", "function", "queue")
DONE = InFlightJob("job", "function", "queue", JobOutcome.FINISHED)
SEQUENCE = list(Phase)

Edge = tuple[Phase, str, Phase]


def possible(state: State, now: float) -> Iterator[tuple[float, events.Event]]:
    """What can happen in this state, each with the instant at which it does."""
    yield now, events.StopAsked(now, Reason.SIGNAL, "SIGTERM")
    yield now, events.Stalled("somewhere")
    if state.job is None and not state.stopping:
        yield now, events.JobTaken(JOB)
    if state.job is not None:
        yield now, events.JobEnded(DONE)
        if state.limits is not None:
            yield state.limits.soft.at, events.Tick()
            yield state.limits.hard.at, events.Tick()
    elif state.drained_at is None:
        yield now, events.LoopEnded(Reason.BURST)
        if state.stopping:
            yield now, events.TornDown()
    if state.drained_at is not None and not state.sealed:
        yield now, events.HookStarted("hook")
        yield now, events.HookEnded(HookResult("hook", HookOutcome.OK))
        yield now, events.HooksOver()


def edges() -> dict[Edge, set[tuple[Effect, ...]]]:
    """Every change of phase, and all that an event may bring about within one, that can be reached from the start."""
    found: dict[Edge, set[tuple[Effect, ...]]] = {}
    start = State(BUDGET, started_at=0.0)
    seen, waiting = {start}, deque([(start, 0.0)])
    while waiting:
        state, now = waiting.popleft()
        for at, event in possible(state, now):
            after, effects = step(state, event, at)
            if after.phase is not state.phase or effects:
                found.setdefault((state.phase, type(event).__name__, after.phase), set()).add(effects)
            small = len(after.stops) <= 2 and len(after.hooks) <= 1 and after.jobs.finished <= 1
            if small and after not in seen:
                seen.add(after)
                waiting.append((after, at))
    return found


def diagram() -> str:
    """The phases as a Mermaid state diagram, and what each event has done, as a table."""
    found = sorted(
        edges().items(), key=lambda each: (SEQUENCE.index(each[0][0]), SEQUENCE.index(each[0][2]), each[0][1])
    )
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> running"]
    merged: dict[tuple[Phase, Phase], list[str]] = {}
    for (before, event, after), _ in found:
        if before is not after:
            merged.setdefault((before, after), []).append(event)
    lines += [f"    {before} --> {after}: {', '.join(events)}" for (before, after), events in merged.items()]
    lines += ["    sealed --> [*]", "```", "", "| in | event | then | effects |", "|---|---|---|---|"]
    for (before, event, after), effects in found:
        then = after if after is not before else "(stays)"
        either = sorted(", ".join(effect.name for effect in one) for one in effects)
        lines.append(f"| {before} | {event} | {then} | {' *or* '.join(either)} |")
    return "\n".join(lines)


def with_diagram(page: str) -> str:
    """The page with the diagram as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text()))
