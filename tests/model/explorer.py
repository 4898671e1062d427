"""Every order of events of a small world, or random ones of a larger one; each state is held against the invariants."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rq import Queue

from tests.model import actors, code_under_test, engine, invariants
from tests.model.engine import NETWORK, Actor, Keys, Runtime, Server, World

TICK_SECONDS = 25


@dataclass(frozen=True)
class Part:
    """An actor at the beginning of a world.

    Args:
        name: its name.
        function: what it does; called with ``arguments``.
        machine: where its process runs.
        mortal: whether it may be killed.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    machine: str = code_under_test.HERE
    mortal: bool = True

    @property
    def pid(self) -> int:
        return next(each for each in self.arguments if isinstance(each, int))


@dataclass(frozen=True)
class Plan:
    """A world to explore.

    Args:
        name: its name.
        about: what happens in it, in a sentence.
        parts: who takes part.
        jobs: ids of the jobs that wait in the first queue at its beginning.
        queues: names of the queues.
        signalled: workers that may get a SIGTERM.
        budget: how many faults of each kind may happen: die, network, time (25 s each), database, raises.
        options: of the jobs, as ``Queue.enqueue`` takes them.
        switches: how often the actor at work may be changed while it could go on; None for no limit.
    """

    name: str
    about: str
    parts: tuple[Part, ...]
    jobs: tuple[str, ...] = ("a",)
    queues: tuple[str, ...] = ("default",)
    signalled: tuple[str, ...] = ()
    budget: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    switches: int | None = None
    until: str = ""
    """Nothing is explored before an actor comes to this request, for instance ``"job a"``."""
    then: tuple[str, ...] = ()
    """Actors whose processes are killed at that instant; a horse by its worker's name and ``/horse``."""
    left: dict[str, str] = field(default_factory=dict)
    """Keys that something has left behind before."""
    counted: int = 0
    """How many interruptions the jobs have behind them."""
    progressed: int = 0
    """How many of these there were when the jobs last got on."""
    may: frozenset[str] = frozenset()
    """Ends that a job may come to in this world besides being finished."""

    def leads(self, name: str) -> bool:
        """Whether an actor takes part in what comes before: the first one, and its horses."""
        return name.startswith(self.parts[0].name)


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a trace; the trace is read from the last one back."""

    text: str
    before: Step | None = None

    def trace(self) -> list[str]:
        steps: list[str] = []
        at: Step | None = self
        while at is not None:
            steps.append(at.text)
            at = at.before
        return steps[::-1]


@dataclass
class Result:
    """What exploring a world came to."""

    plan: Plan
    states: int = 0
    transitions: int = 0
    depth: int = 0
    ends: int = 0
    seconds: float = 0.0
    closed: bool = False
    broken: str = ""
    detail: str = ""
    trace: list[str] = field(default_factory=list)
    steps_seen: set[str] = field(default_factory=set)


@contextmanager
def laboratory(client: Any) -> Iterator[Runtime]:
    """A runtime on a server of its own, which is emptied at will, with the stand-ins in place."""
    runtime = Runtime(Server(client))
    before, level = getattr(engine, "current", None), logging.root.manager.disable
    engine.current = runtime
    logging.disable(logging.CRITICAL)
    try:
        with code_under_test.installed():
            yield runtime
    finally:
        logging.disable(level)
        if before is not None:
            engine.current = before


class Explorer:
    """Explores one world.

    Args:
        runtime: where.
        plan: which.
    """

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self.runtime = runtime
        self.plan = plan
        self.result = Result(plan)
        self._on_server: bytes | None = None
        self._ends: set[bytes] = set()
        self._mortal = {part.pid for part in plan.parts if part.mortal}

    def start(self) -> tuple[World, Keys]:
        """The world at its beginning."""
        runtime, plan = self.runtime, self.plan
        runtime.server.client.flushall()
        runtime.server.client.set(engine.CLOCK_KEY, engine.EPOCH)
        world = runtime.world = World(budget=dict(plan.budget))
        queue = Queue(plan.queues[0], connection=engine.ModelRedis())
        for job_id in plan.jobs:
            queue.enqueue(actors.JOB_FUNCTION, job_id, job_id=job_id, **plan.options)
            if plan.counted:
                runtime.server.client.hset(f"rq:job:{job_id}", code_under_test.INTERRUPTIONS_FIELD, plan.counted)
            if plan.progressed:
                field = f"{code_under_test.INTERRUPTIONS_FIELD}_before_progress"
                runtime.server.client.hset(f"rq:job:{job_id}", field, plan.progressed)
        for key, value in plan.left.items():
            runtime.server.client.set(key, value, ex=86400)
        for part in plan.parts:
            world.machines[part.pid] = part.machine
            world.facts[("machine", part.name)] = part.machine
            world.actors[part.name] = Actor(part.name, part.pid, part.function, part.arguments, world.clock)
        if plan.switches is not None:
            world.budget["switches"] = plan.switches
        self._settle(world)
        while plan.until and not any(
            each.request and each.request.what.startswith(plan.until) for each in world.actors.values()
        ):
            name, ways = next(
                (name, ways)
                for name, actor in world.actors.items()
                if actor.request and (ways := actor.request.ways(world)) and plan.leads(name)
            )
            runtime.step(name, ways[0])
            self._settle(world)
        for killed in plan.then:
            pids = [actor.pid for name, actor in world.actors.items() if name.startswith(killed)]
            code_under_test.end_process(world, pids[-1 if killed.endswith("/horse") else 0], 9)
        self._settle(world)
        keys = runtime.server.take()
        self._on_server = keys.digest
        return world, keys

    def _settle(self, world: World) -> None:
        """Take those that have just begun to their first request, and forget those that are no more."""
        self.runtime.world = world
        for name, actor in list(world.actors.items()):
            if not world.alive(actor.pid):
                del world.actors[name]
            elif actor.request is None and not actor.done:
                self.runtime.step(name, None)
        for name, actor in list(world.actors.items()):
            if not world.alive(actor.pid):
                del world.actors[name]

    def events(self, world: World) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """What may happen next: what goes on by itself, and faults."""
        going: list[tuple[str, str]] = []
        faults: list[tuple[str, str]] = []
        budget = world.budget
        last = world.facts.get(("last",))
        ready = {name: actor.request.ways(world) for name, actor in world.actors.items() if actor.request}
        if budget.get("switches") == 0 and ready.get(last):
            ready = {last: ready[last]}
        for name, ways in ready.items():
            going += [(name, how) for how in ways if how not in ("is away", "raises")]
            faults += [(name, how) for how in ways if how in ("is away", "raises")]
            request = world.actors[name].request
            ours = world.actors[name].function in (actors.graceful_worker, actors.reaper, code_under_test.run_horse)
            if budget.get("network", 0) and request is not None and request.remote and ways and ours:
                faults += [(name, how) for how in NETWORK]
        if budget.get("die", 0):
            pids = {actor.pid for actor in world.actors.values() if actor.pid in self._mortal or actor.pid > 100}
            faults += [("die", str(pid)) for pid in sorted(pids)]
        for name in self.plan.signalled:
            if name in world.actors and not world.facts.get(("signalled", name)):
                faults.append(("signal", name))
        if budget.get("time", 0):
            faults.append(("time", ""))
        return going, faults

    def happen(self, world: World, keys: Keys, event: tuple[str, str]) -> tuple[World, Keys, str]:
        """Let an event happen in a world; returns the next one, and the event in words."""
        who, how = event
        server = self.runtime.server
        world = world.copy()
        if self._on_server != keys.digest:
            server.put(keys, world.clock)
        self._on_server = None
        self.runtime.world = world
        if who == "die":
            world.budget["die"] -= 1
            names = [name for name, actor in world.actors.items() if str(actor.pid) == how]
            text = f"{', '.join(names)} is killed"
            code_under_test.end_process(world, int(how), 9)
        elif who == "signal":
            world.facts[("signalled", how)] = True
            text = f"{how} gets SIGTERM"
        elif who == "time":
            world.budget["time"] -= 1
            actors.pass_time(world, TICK_SECONDS)
            text = f"{TICK_SECONDS} s go by"
        else:
            actor = world.actors[who]
            assert actor.request is not None
            text = f"{who}: {actor.request.what} ({how})"
            if how in NETWORK:
                world.budget["network"] -= 1
                world.facts[("lost a command",)] = True
                if (owner := world.facts.get(("horse", actor.pid))) and how != "is sent twice":
                    world.facts[("cut off", code_under_test.job_of(world, owner[0]))] = True
            elif how == "is away":
                world.budget["database"] -= 1
            elif how == "raises":
                world.budget["raises"] -= 1
            last = world.facts.get(("last",))
            if "switches" in world.budget:
                if last != who and last in world.actors and self._could(world, last):
                    world.budget["switches"] -= 1
                world.facts[("last",)] = who
            self.runtime.step(who, how)
        self._settle(world)
        keys = server.take()
        self._on_server = keys.digest
        return world, keys, text

    @staticmethod
    def _could(world: World, name: str) -> bool:
        request = world.actors[name].request
        return request is not None and bool(request.ways(world))

    def explore(self, *, breadth_first: bool = False, most: int | None = None, seconds: float | None = None) -> Result:
        """To the last state, or until an invariant is broken, or as far as ``most`` states or ``seconds`` go."""
        result = self.result
        began = time.monotonic()
        world, keys = self.start()
        seen = {self._digest(world, keys)}
        result.states = 1
        first = Step("it begins")
        todo: deque[tuple[World, Keys, tuple[str, str], Step, int]] = deque()
        if self._look(world, keys, first):
            todo.extend((world, keys, event, first, 1) for event in self._all_events(world, keys, first))
        while todo and not result.broken:
            if (most and result.states >= most) or (seconds and time.monotonic() - began > seconds):
                break
            world, keys, event, step, depth = todo.popleft() if breadth_first else todo.pop()
            world, keys, text = self.happen(world, keys, event)
            step = Step(text, step)
            result.transitions += 1
            result.depth = max(result.depth, depth)
            digest = self._digest(world, keys)
            if digest in seen:
                continue
            seen.add(digest)
            result.states += 1
            if not self._look(world, keys, step):
                break
            todo.extend((world, keys, each, step, depth + 1) for each in self._all_events(world, keys, step))
        result.closed = not todo and not result.broken
        result.seconds = time.monotonic() - began
        return result

    def walk(self, seed: int, *, fault: float = 0.15) -> Result:
        """One random way through the world; the same for the same seed."""
        chance = random.Random(seed)
        world, keys = self.start()
        step = Step(f"it begins (seed {seed})")
        depth = 0
        while self._look(world, keys, step):
            going, faults = self.events(world)
            if not going and not (faults and chance.random() < 0.5):
                self._end(world, keys, step)
                break
            event = chance.choice(faults if faults and (not going or chance.random() < fault) else going)
            world, keys, text = self.happen(world, keys, event)
            step = Step(text, step)
            depth += 1
            self.result.transitions += 1
            self.result.states += 1
        self.result.depth = max(self.result.depth, depth)
        return self.result

    def _all_events(self, world: World, keys: Keys, step: Step) -> list[tuple[str, str]]:
        going, faults = self.events(world)
        if not going:
            self._end(world, keys, step)
        # The last is the first that is explored: what goes on by itself.
        return faults[::-1] + going[::-1]

    def _look(self, world: World, keys: Keys, step: Step) -> bool:
        return self._judge(invariants.always(world, keys, self.plan), step)

    def _end(self, world: World, keys: Keys, step: Step) -> None:
        """Nothing goes on by itself any more: after some minutes and with a new worker all must be well."""
        facts = sorted((repr(key), repr(value)) for key, value in world.facts.items() if key[0] != "memory")
        digest = keys.digest + repr((world.clock, sorted(world.machines), facts)).encode()
        if digest in self._ends:
            return
        self._ends.add(digest)
        self.result.ends += 1
        world = world.copy()
        if self._on_server != keys.digest:
            self.runtime.server.put(keys, world.clock)
        self._on_server = None
        for actor in list(world.actors.values()):
            code_under_test.end_process(world, actor.pid, 9)
        world.actors = {}
        world.budget = {}
        self.runtime.world = world
        errors = actors.recovery(self.plan.queues)
        after = self.runtime.server.take()
        step = Step("minutes later a worker starts, and does what is left", step)
        if errors:
            self._judge([("a worker can work", repr(errors[0]))], step)
            return
        self._judge(
            [*invariants.always(world, after, self.plan), *invariants.at_the_end(world, after, self.plan)], step
        )

    def _judge(self, broken: Iterable[tuple[str, str]], step: Step) -> bool:
        for name, detail in broken:
            self.result.broken, self.result.detail, self.result.trace = name, detail, step.trace()
            return False
        return True

    @staticmethod
    def _digest(world: World, keys: Keys) -> bytes:
        return keys.digest + world.digest()
