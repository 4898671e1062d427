"""Where a fault strikes, and what it may do to the worker there."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.chaos.actors import ACTORS
from tests.chaos.lane import Lane, Worker
from tests.chaos.ledger import turns
from tests.chaos.plan import Round
from tests.support.waiting import wait_until


@dataclass
class Scene:
    """One round while it is played.

    Args:
        lane: where.
        round: what.
        worker: the worker that is struck.
        rng: for what the fault draws itself.
    """

    lane: Lane
    round: Round
    worker: Worker
    rng: random.Random
    actor: Worker | None = None
    """Who else is there, where that is a process."""
    stopped_at: float | None = None
    """When the worker was first asked to stop (monotonic)."""
    excused_until: float = 0.0
    """Until when it could not know (monotonic): it was stopped itself."""
    lifted: ExitStack = field(default_factory=ExitStack)
    """What lifts the fault; at the latest when the worker has ended."""

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ask the worker to stop; the budget counts from the first time."""
        self.stop_counts()
        self.worker.signal(signum)

    def stop_counts(self) -> None:
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the worker has ended."""
        self.worker.ended.wait(max(0.0, seconds))

    def let_others_act(self) -> None:
        """Wait until whoever is there has done, from now on, what it is there for; a stock worker comes and goes."""
        if self.round.actor == "stock":
            stock = self.lane.start_worker(self.round.queues, "burst", stock=True)
            assert stock.ended.wait(20), stock.output
        elif self.actor is not None and self.round.actor in ACTORS:
            # The first turn to end may have begun before.
            before = turns(self.lane.ledger.lines(), self.round.actor)
            wait_until(
                lambda: turns(self.lane.ledger.lines(), self.round.actor) > before + 1 or self.round.actor == "cron",
                20,
                lambda: f"a turn of {self.round.actor}",
            )

    def lift(self) -> None:
        self.lifted.close()

    def stop_around(self, strike: Callable[[], None], lift: Callable[[], None] | None = None) -> None:
        """Strike, lift after ``round.hold``, and ask the worker to stop before, between or after these.

        Without ``lift`` the fault lasts until the worker has ended.
        """
        plan = self.round
        events: list[tuple[float, int, Callable[[], None]]] = [(0.0, 1, strike), (plan.stop, 0, self.stop)]
        if lift is not None:
            self.lifted.callback(once(lift))
            events.append((plan.hold, 2, self.lift))
        events.sort(key=lambda event: event[:2])
        began = time.monotonic() - min(0.0, plan.stop)
        for at, _, do in events:
            if do == self.stop:
                self.sleep(began + at - time.monotonic())
            else:
                time.sleep(max(0.0, began + at - time.monotonic()))
            do()


def once(do: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def doing() -> None:
        if not done:
            done.append(True)
            do()

    return doing
