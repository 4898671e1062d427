"""What is broken: each fault strikes a scene, and is lifted with the block that it was struck in."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.jobs import BAD_HOOKS
from tests.chaos.lane import Lane, Worker
from tests.chaos.plan import MODES, Round

HOOK = "tests.chaos.jobs.hook_good"


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


# Signals.


def sigterm(scene: Scene) -> None:
    scene.stop()


def sigint(scene: Scene) -> None:
    scene.stop(signal.SIGINT)


def double(scene: Scene) -> None:
    scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))
    scene.sleep(scene.rng.choice((0.0, 0.01, 1.02)))
    scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


def triple(scene: Scene) -> None:
    for _ in range(2):
        scene.stop(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))
        scene.sleep(scene.rng.choice((0.0, 0.05, 1.02)))
    scene.stop()


def group(scene: Scene) -> None:
    scene.stop_counts()
    scene.worker.signal_group(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


def session(scene: Scene) -> None:
    scene.stop_counts()
    scene.worker.signal_session(scene.rng.choice((signal.SIGTERM, signal.SIGINT)))


# Sudden death.


def kill_worker(scene: Scene) -> None:
    scene.worker.signal(signal.SIGKILL)


def kill_stopping(scene: Scene) -> None:
    """As a platform does whose grace period is over."""
    scene.stop()
    scene.sleep(scene.rng.choice((scene.rng.uniform(0, 0.03), scene.rng.uniform(0, 1.5))))
    scene.worker.signal(signal.SIGKILL)


def kill_horse(scene: Scene) -> None:
    children = scene.worker.children()
    if children:
        try:
            os.kill(scene.rng.choice(children), signal.SIGKILL)
        except ProcessLookupError:
            pass
    scene.sleep(max(0.0, scene.round.stop))
    scene.stop()


def kill_both(scene: Scene) -> None:
    scene.worker.signal_session(signal.SIGKILL)


def freeze(scene: Scene) -> None:
    """SIGSTOP, and SIGCONT past the deadline."""
    first = scene.rng.random() < 0.5
    if first:
        scene.stop()
        scene.sleep(scene.rng.uniform(0, 0.05))
    scene.worker.signal(signal.SIGSTOP)
    if not first:
        scene.worker.signal(signal.SIGTERM)
    scene.sleep(TIMEOUT + scene.rng.uniform(0.0, 0.3))
    scene.worker.signal(signal.SIGCONT)
    # A signal that was sent while it was stopped reaches it only now.
    scene.stop_counts()
    scene.excused_until = time.monotonic() if first else 0.0


# Redis.


def redis_kept(scene: Scene) -> None:
    """Restarted, with all that it held."""
    server = scene.lane.server

    def strike() -> None:
        with server.client(socket_timeout=5, retry=None) as client:
            client.shutdown(save=True)
        assert server.process is not None
        server.process.wait(10)

    scene.stop_around(strike, lambda: server.start() and None)


def redis_lost(scene: Scene) -> None:
    """Restarted, with all but the last moments."""
    server = scene.lane.server
    if scene.worker.ended.is_set():
        return
    scene.lane.connection.save()
    scene.sleep(scene.rng.choice((0.0, scene.rng.uniform(0, 0.05), scene.rng.uniform(0, 0.8))))
    scene.stop_around(server.kill, lambda: server.start() and None)


def redis_paused(scene: Scene) -> None:
    scene.stop_around(scene.lane.server.pause, scene.lane.server.resume)


def redis_refuses(scene: Scene) -> None:
    scene.stop_around(scene.lane.proxy.refuse, scene.lane.proxy.resume)


def redis_gone(scene: Scene) -> None:
    """Refuses connections until the worker has ended."""
    scene.lifted.callback(scene.lane.proxy.resume)
    scene.stop_around(scene.lane.proxy.refuse)


def network_gone(scene: Scene) -> None:
    """No reply and no reset, until the worker has ended."""
    scene.lifted.callback(scene.lane.proxy.resume)
    scene.stop_around(scene.lane.proxy.stall)


def cut_reply(scene: Scene) -> None:
    """Connections cut in the middle of a reply, several times."""
    proxy = scene.lane.proxy

    def strike() -> None:
        for _ in range(scene.rng.randint(1, 4)):
            proxy.cut_in_reply(scene.rng.choice((0, 1, scene.rng.randint(0, 60), scene.rng.randint(0, 2000))))
            scene.sleep(scene.rng.uniform(0, 0.06))

    scene.lifted.callback(proxy.resume)
    scene.stop_around(strike)


def redis_full(scene: Scene) -> None:
    """Out of memory."""
    connection = scene.lane.connection
    scene.stop_around(
        lambda: connection.config_set("maxmemory", "1") and None,
        lambda: connection.config_set("maxmemory", "0") and None,
    )


def redis_read_only(scene: Scene) -> None:
    """A replica since the last failover."""
    connection = scene.lane.connection
    scene.stop_around(
        lambda: connection.replicaof("127.0.0.1", "1") and None, lambda: connection.replicaof("NO", "ONE") and None
    )


# The database.


def database_locked(scene: Scene) -> None:
    """Another process writes until the worker has ended."""
    _lock_database(scene)
    scene.sleep(scene.round.stop)
    scene.stop()


def database_slow(scene: Scene) -> None:
    """Another process writes for a while."""
    locked: list[sqlite3.Connection] = []

    def strike() -> None:
        locked.append(scene.lane.open_database())
        locked[0].execute("BEGIN EXCLUSIVE")

    def lift() -> None:
        for each in locked:
            each.close()

    scene.stop_around(strike, lift)


def database_gone(scene: Scene) -> None:
    """Its path is a directory until the worker has ended."""
    path = scene.lane.database
    away = path.with_suffix(".away")

    def lift() -> None:
        path.rmdir()
        away.rename(path)

    path.rename(away)
    path.mkdir()
    scene.lifted.callback(once(lift))
    scene.sleep(scene.round.stop)
    scene.stop()


def nothing_there(scene: Scene) -> None:
    """Neither Redis nor the database, until the worker has ended."""
    _lock_database(scene)
    scene.lifted.callback(scene.lane.proxy.resume)
    strike = scene.rng.choice((scene.lane.proxy.refuse, scene.lane.proxy.stall))
    scene.stop_around(strike)


def _lock_database(scene: Scene) -> None:
    locked = scene.lane.open_database()
    locked.execute("BEGIN EXCLUSIVE")
    scene.lifted.callback(locked.close)


# The machine.


def disk_full(scene: Scene) -> None:
    """No file gets any longer: neither the database's, nor a spooled report, nor the kept stacks."""
    if not scene.worker.ended.is_set():
        for pid in (scene.worker.pid, *scene.worker.children()):
            try:
                _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
            except ProcessLookupError:
                continue
    scene.sleep(scene.round.stop)
    scene.stop()


def clock_back(scene: Scene) -> None:
    """The wall clock jumps, backwards mostly."""
    scene.stop_around(lambda: scene.lane.bend_clock(scene.rng.choice((-1.0, -60.0, -7200.0, -1e6, 7200.0))))


def bad_hooks(scene: Scene) -> None:
    """Exit hooks that do what they must not; which ones is in the settings."""
    scene.stop()


def bad_hook_settings(rng: random.Random) -> dict[str, Any]:
    hooks: list[Any] = rng.sample(BAD_HOOKS, rng.randint(1, 3))
    return {"GRACEFUL_EXIT_HOOKS": [*hooks, HOOK]}


TIMEOUT = 1.4
"""``GRACEFUL_TIMEOUT`` of the suite's workers, seconds."""
SETTINGS: Mapping[str, Any] = {
    "GRACEFUL_TIMEOUT": TIMEOUT,
    "GRACEFUL_HOOKS_TIMEOUT": 0.6,
    "GRACEFUL_INTERRUPT_TIMEOUT": 0.25,
    "GRACEFUL_EXIT_HOOKS": [HOOK],
}


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Args:
        strike: does it, and stops the worker if that is not what it does anyway.
        stock: whether it is also tried on the stock worker.
        proxied: whether the worker is connected through the proxy.
        may_fail: whether RQ fails a job for it: its horse is dead, or its result could not be stored.
        may_repeat: whether a job that was done may be done again: Redis has forgotten of it.
        report_may_be_lost: whether there may be no place for the report at all.
        modes: the modes that it is tried in.
        settings: of the workers that it strikes.
    """

    strike: Callable[[Scene], None]
    stock: bool = False
    proxied: bool = False
    may_fail: bool = False
    may_repeat: bool = False
    report_may_be_lost: bool = False
    modes: tuple[str, ...] = MODES
    settings: Callable[[random.Random], Mapping[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.strike.__name__


WITH_HORSE = tuple(mode for mode in MODES if mode != "simple")
_ALL = (
    Fault(sigterm, stock=True),
    Fault(sigint, stock=True),
    Fault(double, stock=True),
    Fault(triple, stock=True),
    Fault(group, stock=True),
    Fault(session, stock=True),
    Fault(kill_worker, stock=True),
    Fault(kill_stopping, stock=True),
    Fault(kill_horse, stock=True, may_fail=True, modes=WITH_HORSE),
    Fault(kill_both, stock=True),
    Fault(freeze, stock=True),
    Fault(redis_kept, stock=True, may_fail=True),
    Fault(redis_lost, stock=True, may_fail=True, may_repeat=True),
    Fault(redis_paused, stock=True, may_fail=True),
    Fault(redis_refuses, stock=True, proxied=True, may_fail=True),
    Fault(redis_gone, proxied=True, may_fail=True),
    Fault(network_gone, proxied=True, may_fail=True),
    Fault(cut_reply, stock=True, proxied=True, may_fail=True),
    Fault(redis_full, stock=True, may_fail=True),
    Fault(redis_read_only, stock=True, may_fail=True),
    Fault(database_locked),
    Fault(database_slow),
    Fault(database_gone),
    Fault(nothing_there, proxied=True, may_fail=True),
    *([Fault(disk_full, may_fail=True)] if sys.platform == "linux" else []),
    Fault(clock_back, stock=True),
    Fault(bad_hooks, settings=bad_hook_settings),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
