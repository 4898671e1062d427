"""All kinds of faults, and what may become of a round that each strikes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.faults import database, machine, network, redis_server, signals
from tests.chaos.faults.scene import Scene
from tests.chaos.plan import MODES


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
    Fault(signals.sigterm, stock=True),
    Fault(signals.sigint, stock=True),
    Fault(signals.double, stock=True),
    Fault(signals.triple, stock=True),
    Fault(signals.group, stock=True),
    Fault(signals.session, stock=True),
    Fault(signals.kill_worker, stock=True),
    Fault(signals.kill_stopping, stock=True),
    Fault(signals.kill_horse, stock=True, may_fail=True, modes=WITH_HORSE),
    Fault(signals.kill_both, stock=True),
    Fault(signals.freeze, stock=True),
    Fault(redis_server.redis_kept, stock=True, may_fail=True),
    Fault(redis_server.redis_lost, stock=True, may_fail=True, may_repeat=True),
    Fault(redis_server.redis_paused, stock=True, may_fail=True),
    Fault(network.redis_refuses, stock=True, proxied=True, may_fail=True),
    Fault(network.redis_gone, proxied=True, may_fail=True),
    Fault(network.network_gone, proxied=True, may_fail=True),
    Fault(network.cut_reply, stock=True, proxied=True, may_fail=True),
    Fault(redis_server.redis_full, stock=True, may_fail=True),
    Fault(redis_server.redis_read_only, stock=True, may_fail=True),
    Fault(database.database_locked),
    Fault(database.database_slow),
    Fault(database.database_gone),
    Fault(database.nothing_there, proxied=True, may_fail=True),
    *([Fault(machine.disk_full, may_fail=True)] if sys.platform == "linux" else []),
    Fault(machine.clock_back, stock=True),
    Fault(machine.bad_hooks, settings=machine.bad_hook_settings),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
