"""What happens in a round: drawn from seed and number alone, so that any round can be played again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MODES = ("one queue", "three queues", "burst", "scheduler", "spawn", "simple")
MODE_WEIGHTS = (5, 5, 2, 2, 1, 3)
QUEUES = ("default", "high", "low")
KINDS = ("napping", "spinning", "stubborn", "in_turns")
"""Of jobs."""
ACTORS = ("nobody", "scrape", "dashboard", "stock", "cron", "stop job", "cancel")
"""Who else is there, see :mod:`tests.chaos.actors`; ``stock`` is django-rq's own ``rqworker`` on the same queues."""
ACTOR_WEIGHTS = (10, 2, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class Round:
    """One round.

    Args:
        seed: the seed of the whole run.
        number: the round's number in it.
        fault: name of the fault.
        mode: one of :data:`MODES`.
        jobs: kind, seconds and queue of each job.
        delay: seconds from the worker's first job to the fault.
        hold: seconds for which the fault lasts, where it does not last until the worker's end.
        stop: seconds from the fault to SIGTERM, where the fault itself does not stop the worker; before it if negative.
        rival: whether a second worker is there from the start.
        same_name: whether the reaper takes the first worker's name.
        actor: one of :data:`ACTORS`.
        later: seconds after which RQ's scheduler is to enqueue further jobs; only where the worker has one.
        dice: seed of whatever else is drawn.
    """

    seed: int
    number: int
    fault: str
    mode: str
    jobs: tuple[tuple[str, float, str], ...]
    delay: float
    hold: float
    stop: float
    rival: bool
    same_name: bool
    actor: str
    later: tuple[float, ...]
    dice: int

    @property
    def queues(self) -> tuple[str, ...]:
        return QUEUES if self.mode == "three queues" else QUEUES[:1]

    def __str__(self) -> str:
        jobs = " ".join(f"{kind}:{seconds}@{queue}" for kind, seconds, queue in self.jobs)
        return (
            f"round {self.number} of seed {self.seed}: {self.fault}, {self.mode}, delay {self.delay} s, "
            f"hold {self.hold} s, stop {self.stop:+} s, rival {self.rival}, same name {self.same_name}, "
            f"beside it {self.actor}, jobs {jobs}{''.join(f' later:{each}' for each in self.later)}"
        )


class Moded(Protocol):
    """What a plan must know of a fault."""

    @property
    def modes(self) -> tuple[str, ...]: ...

    @property
    def actors(self) -> tuple[str, ...]: ...


def plan(seed: int, number: int, names: Sequence[str], faults: Mapping[str, Moded]) -> Round:
    """The round of a number; faults take turns, everything else is drawn.

    Args:
        seed: of the run.
        number: from 0.
        names: names of the faults to choose from.
        faults: all of them.
    """
    rng = random.Random(f"{seed}:{number}")
    fault = names[number % len(names)]
    modes, actors = faults[fault].modes, faults[fault].actors
    mode = rng.choices(modes, [MODE_WEIGHTS[MODES.index(each)] for each in modes])[0]
    queues = QUEUES if mode == "three queues" else QUEUES[:1]
    jobs = tuple(
        (
            # Not "in_turns": where Redis is away when its turn is over, the report calls that an interruption.
            rng.choices(KINDS, (8, 1, 1, 0))[0],
            # Most are over at once: it is between two jobs that things go wrong.
            rng.choice((0.0, 0.0, 0.0, 0.0, 0.01, 0.05, 0.2)) if turn else rng.choice((0.0, 0.1, 0.4, 1.0)),
            rng.choice(queues),
        )
        for turn in range(rng.randint(5, 10))
    )
    return Round(
        seed=seed,
        number=number,
        fault=fault,
        mode=mode,
        jobs=jobs,
        delay=round(rng.choice((0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.4))), 4),
        hold=round(rng.choice((rng.uniform(0, 0.1), rng.uniform(0, 0.8))), 4),
        stop=round(rng.choice((rng.uniform(-0.15, 0.0), rng.uniform(0, 0.05), rng.uniform(0, 0.5))), 4),
        rival=rng.random() < 0.15,
        same_name=rng.random() < 0.5,
        actor=rng.choices(actors, [ACTOR_WEIGHTS[ACTORS.index(each)] for each in actors])[0],
        later=tuple(round(rng.uniform(0, 0.8), 3) for _ in range(rng.randint(1, 3))) if mode == "scheduler" else (),
        dice=rng.getrandbits(32),
    )
