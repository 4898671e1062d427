"""All kinds of faults, and what may become of a round that each strikes."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.faults import database, machine, network, postgres, redis_server, sentinel, signals
from tests.chaos.faults.scene import Scene
from tests.chaos.plan import ACTORS, MODES


@dataclass(frozen=True)
class Failure:
    """A way in which RQ fails a job for a fault.

    Args:
        name: in a word or two, for the table.
        reason: a regular expression of the last line of what the job's result says.
    """

    name: str
    reason: str

    def is_reason(self, text: str) -> bool:
        return re.fullmatch(self.reason, text) is not None


HORSE_KILLED = Failure("horse killed", r"Work-horse terminated unexpectedly; waitpid returned 9 \(signal 9\);")
"""``Worker.handle_work_horse_killed`` in rq/worker/worker_classes.py."""
STOPPED = Failure("stopped by user", r"Job stopped by user, work-horse terminated\.")
HORSE_GAVE_UP = Failure("horse gave up", r"Work-horse terminated unexpectedly; waitpid returned 256;")
"""Exit code 1: Redis refused or did not answer outside of the job itself, where RQ's horse lets the error through."""
REDIS_ERROR = Failure("Redis away", r"redis\.(exceptions\.(Connection|Timeout)|sentinel\.MasterNotFound)Error: .*")
READ_ONLY = Failure("read-only", r"redis\.exceptions\.ReadOnlyError: .*")
OUT_OF_MEMORY = Failure("out of memory", r"redis\.exceptions\.OutOfMemoryError: .*")


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Args:
        strike: does it, and stops the worker if that is not what it does anyway.
        stock: whether it is also tried on the stock worker.
        proxied: whether the worker is connected through the proxy.
        may_fail: the failures of jobs that are meant: the horse is dead, or its result could not be stored.
        may_redo: whether a job may be done again that had come to its end: its horse died before the result was stored.
        may_repeat: whether a job that was done may be done again: Redis has forgotten of it.
        modes: the modes that it is tried in.
        actors: who may be there beside it.
        alone: whether no second worker may be there.
        codes: exit codes with which the worker may end whatever its report says.
        unsealed: exit codes with which the worker may end before its report is sealed anywhere.
        services: which lanes it is tried on, see :mod:`tests.chaos.services`.
        settings: of the workers that it strikes.
    """

    strike: Callable[[Scene], None]
    stock: bool = False
    proxied: bool = False
    may_fail: tuple[Failure, ...] = ()
    may_redo: bool = False
    may_repeat: bool = False
    modes: tuple[str, ...] = MODES
    actors: tuple[str, ...] = ACTORS
    alone: bool = False
    codes: tuple[int, ...] = ()
    unsealed: tuple[int, ...] = ()
    services: tuple[str, ...] = ("plain", "tls")
    settings: Callable[[random.Random], Mapping[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.strike.__name__


WITH_HORSE = tuple(mode for mode in MODES if mode != "simple")
NO_STOCK = tuple(actor for actor in ACTORS if actor != "stock")
"""A stock worker beside would lose jobs to a fault of the server by itself."""
ANYWHERE = ("plain", "tls", "postgres", "sentinel", "hidepid")
FROZEN = (1, -signal.SIGKILL, -signal.SIGSEGV)
"""A worker that was stopped until its deadline had passed is ended, wherever it stands, by the watchdog, which may
crash over the stacks of running threads that it reads without the GIL, or, if it is a simple one, by its supervisor."""
FORCED = (os.EX_SOFTWARE,)
"""The guardian has a tenth of the suite's short grace period to store a report that few places are left for."""
AWAY = (REDIS_ERROR, HORSE_GAVE_UP)
_ALL = (
    Fault(signals.sigterm, stock=True, services=ANYWHERE),
    Fault(signals.sigint, stock=True),
    Fault(signals.double, stock=True),
    Fault(signals.triple, stock=True),
    Fault(signals.group, stock=True),
    Fault(signals.session, stock=True),
    Fault(signals.kill_worker, stock=True, may_redo=True, services=ANYWHERE),
    Fault(signals.kill_stopping, stock=True, may_redo=True),
    Fault(signals.kill_horse, stock=True, may_fail=(HORSE_KILLED,), may_redo=True, modes=WITH_HORSE),
    Fault(signals.kill_both, stock=True, may_redo=True, services=ANYWHERE),
    Fault(machine.outage, may_redo=True, alone=True, actors=("nobody", "scrape", "dashboard", "stock")),
    Fault(signals.freeze, stock=True, may_redo=True, codes=FROZEN, unsealed=FORCED),
    Fault(redis_server.redis_kept, stock=True, may_fail=AWAY, may_redo=True, actors=NO_STOCK),
    Fault(redis_server.redis_lost, stock=True, may_fail=AWAY, may_redo=True, may_repeat=True, actors=NO_STOCK),
    Fault(redis_server.redis_paused, stock=True, may_fail=AWAY, may_redo=True, actors=NO_STOCK),
    Fault(network.redis_refuses, stock=True, proxied=True, may_fail=AWAY, may_redo=True),
    Fault(network.redis_gone, proxied=True, may_fail=AWAY, may_redo=True, unsealed=FORCED),
    Fault(network.network_gone, proxied=True, may_fail=AWAY, may_redo=True, unsealed=FORCED),
    Fault(network.cut_reply, stock=True, proxied=True, may_fail=AWAY, may_redo=True),
    Fault(redis_server.redis_full, stock=True, may_fail=(OUT_OF_MEMORY, HORSE_GAVE_UP), may_redo=True, actors=NO_STOCK),
    Fault(
        redis_server.redis_read_only, stock=True, may_fail=(READ_ONLY, HORSE_GAVE_UP), may_redo=True, actors=NO_STOCK
    ),
    Fault(database.database_locked),
    Fault(database.database_slow),
    Fault(database.database_gone),
    Fault(database.nothing_there, proxied=True, may_fail=AWAY, may_redo=True, unsealed=FORCED),
    *([Fault(machine.disk_full, may_fail=(HORSE_KILLED,), may_redo=True)] if sys.platform == "linux" else []),
    Fault(machine.clock_back, stock=True),
    Fault(machine.bad_hooks, settings=machine.bad_hook_settings),
    Fault(postgres.backends_killed, services=("postgres",)),
    Fault(postgres.out_of_connections, services=("postgres",)),
    Fault(postgres.postgres_restarts, services=("postgres",)),
    Fault(postgres.postgres_crashes, services=("postgres",)),
    Fault(postgres.postgres_gone, services=("postgres",)),
    Fault(postgres.postgres_hangs, services=("postgres",)),
    Fault(postgres.table_locked, services=("postgres",)),
    Fault(
        sentinel.primary_killed,
        may_fail=(*AWAY, READ_ONLY),
        may_redo=True,
        may_repeat=True,
        actors=NO_STOCK,
        services=("sentinel",),
    ),
    Fault(
        sentinel.planned_failover,
        may_fail=(*AWAY, READ_ONLY),
        may_redo=True,
        may_repeat=True,
        actors=NO_STOCK,
        services=("sentinel",),
    ),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}


def names_for(service: str) -> list[str]:
    """Names of the faults that are tried on one kind of lane, in their order."""
    return [name for name, fault in FAULTS.items() if service in fault.services]
