"""The code that is explored: every name of it that the model needs, and what stands in for the world around it.

The only module here that knows where things are in ``graceful``: a file that is renamed there is one line here.

What is real: all Lua scripts, fetch, claim, requeue, failing, heartbeat, leaving, the reaper, the report from start
to end, and of RQ the whole way of a job. What stands in for something: processes and their start times (a table), the
clock, the memory that worker and horse share, waiting, the database and the spool (dicts that keep to the archive's
rules).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import rq.executions
import rq.utils
from rq.job import Job
from rq.queue import Queue
from rq.timeouts import BaseDeathPenalty, HorseMonitorTimeoutException

from graceful import conf
from graceful.core import deadline, events, report_json, shutdown
from graceful.core.phases import Reason
from graceful.core.post_mortem import knows_more
from graceful.core.records import ShutdownReport
from graceful.jobs import interruption
from graceful.jobs.shared_memory import Stage, Verdict
from graceful.reports import builder, journal
from graceful.reports.journal import Journal
from graceful.worker import session as session_module
from graceful.worker import worker as worker_module
from graceful.worker.classes import GracefulWorker
from graceful.worker.cluster import (
    dead_workers_job,
    heartbeat,
    last_report,
    membership,
    process_identity,
    reaper,
    registration,
)
from graceful.worker.cluster.heartbeat import HEARTBEAT_SECONDS, Heartbeat
from graceful.worker.compat import rq_private
from graceful.worker.horse import back_off, current_job, monitor, rq_methods, run
from graceful.worker.queue import dequeue, fail_job, requeue
from graceful.worker.shutdown import coordinator, effects
from graceful.worker.shutdown import report as report_module
from graceful.worker.shutdown.os_signals import Received
from tests.model import engine
from tests.model.engine import Request, World


def _scripts() -> dict[str, str]:
    """Every Lua script there is, by its name in the code; one that is added there is found here by itself."""
    found: dict[str, str] = {}
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("graceful."):
            continue
        for name, text in vars(module).items():
            if isinstance(text, str) and "redis.call(" in text and name.endswith(("_SCRIPT", "SET_ASIDE")):
                short = name.removesuffix("_SCRIPT").lower()
                if found.setdefault(short, text) != text:
                    found[f"{short} of {module_name.rpartition('.')[2]}"] = text
    return found


SCRIPTS = _scripts()
INTERRUPTIONS_FIELD = requeue.INTERRUPTIONS_FIELD
JOURNAL_KEY = journal.JOURNAL_KEY
RECOVERY_PID = 900
HERE = "here"
"""The machine of most processes."""


# What stands in for the world.


class NoPenalty(BaseDeathPenalty):  # type: ignore[misc]
    """Time passes only where the explorer lets it: no alarm."""

    def setup_death_penalty(self) -> None: ...

    def cancel_death_penalty(self) -> None: ...


class SharedMemory:
    """The page that a worker shares with its horse, as facts of the world."""

    FIELDS = {"verdict": Verdict.NONE, "interrupt": False, "policy": None, "stage": Stage.STARTING, "function": ""}

    def __init__(self, owner: str, worker_pid: int) -> None:
        self.__dict__.update(owner=owner, worker_pid=worker_pid)

    def __getattr__(self, name: str) -> Any:
        if name not in self.FIELDS:
            raise AttributeError(name)
        key = ("memory", self.owner, name)
        return engine.current.observe(f"memory {name}", lambda world: world.facts.get(key, self.FIELDS[name]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.FIELDS:
            return  # The worker's pid, which stands here already.
        engine.current.effect(lambda world: world.facts.__setitem__(("memory", self.owner, name), value))

    def reset(self) -> None:
        for name, value in self.FIELDS.items():
            setattr(self, name, value)

    @property
    def announced(self) -> bool:
        return bool(engine.current.observe("announced", lambda world: world.facts.get(("signalled", self.owner))))

    limits = None
    exceeded = None

    @property
    def raises(self) -> bool:
        return bool(self.interrupt)

    def announce(self, limits: Any) -> None: ...

    def read_stack(self) -> str:
        return ""

    def write_stack(self, text: str) -> None: ...

    def close(self) -> None: ...


class Archive:
    """The database, for this model: reports by id, stored by the archive's own rules."""

    @staticmethod
    def store(report: ShutdownReport, *, seconds: float) -> bool:
        def do(how: str) -> bool:
            if how == "is away":
                return False
            engine.current.world.facts.update(_kept(engine.current.world, report))
            return True

        ways: tuple[str, ...] = ("goes on",)
        request = Request(
            f"archive {report.id}",
            do,
            lambda world: (*ways, "is away") if world.budget.get("database", 0) else ways,
            remote=False,
        )
        return bool(engine.current.request(request))

    @staticmethod
    def read(worker_id: str) -> ShutdownReport | None:
        text = engine.current.observe(f"archived {worker_id}", lambda world: world.facts.get(("archived", worker_id)))
        return report_json.load(text) if text else None

    @staticmethod
    def archive_pending(holder: Any, seconds: float) -> int:
        """As the archive's: store what waits, and remove it there."""
        stored = [report.id for report in holder.entries() if Archive.store(report, seconds=seconds)]
        holder.remove(*stored)
        return len(stored)


def _kept(world: World, report: ShutdownReport) -> dict[tuple[Any, ...], Any]:
    text = world.facts.get(("archived", report.id))
    stored = report_json.load(text) if text else None
    if stored is not None and not knows_more(report, stored):
        return {}
    return {("archived", report.id): report_json.dump(report)}


class Spool:
    """The directory for reports that neither Redis nor the database took."""

    def __init__(self, directory: Any) -> None: ...

    def write(self, report: ShutdownReport, *, quiet: bool = False) -> bool:
        key, text = ("spooled", report.id), report_json.dump(report)
        engine.current.effect(lambda world: world.facts.__setitem__(key, text))
        return True

    def entries(self) -> list[ShutdownReport]:
        found = engine.current.observe("spool", lambda world: tuple(sorted(world.find("spooled").values())))
        return [report_json.load(text) for text in found]

    def remove(self, *report_ids: str) -> None:
        for worker_id in report_ids:
            engine.current.effect(lambda world, worker_id=worker_id: world.facts.pop(("spooled", worker_id), None))


class JournalWriter:
    """As the worker's own: what is written ahead is not waited for, so it cannot fail."""

    def __init__(self, own: Any, connection: Any) -> None:
        self._connection = connection

    def write(self, report: ShutdownReport) -> None:
        Journal(self._connection).write(report)
        engine.current.effect(lambda world: world.facts.__setitem__(("opened", report.id), True))

    def post(self, report: ShutdownReport) -> None:
        self._connection.execute_command("HSET", JOURNAL_KEY, report.id, report_json.dump(report), posted=True)

    def close(self) -> None: ...


def _inline(call: Callable[[], Any], seconds: float) -> Any:
    """As ``bounded``, without a thread."""
    doing = SimpleNamespace(value=None, error=None)
    try:
        doing.value = call()
    except Exception as error:
        doing.error = error
    return doing


def _start_time(pid: int) -> str:
    alive = engine.current.observe(f"process {pid}", lambda world: world.alive(pid))
    return f"t{pid}" if alive else ""


def _inspect(pid: int) -> tuple[str, Any]:
    started = _start_time(pid)
    return started, process_identity.Liveness.ALIVE if started else process_identity.Liveness.DEAD


def _here(call: Callable[[], Any], seconds: float) -> bool:
    """As the call in a child process that a job is failed by, in this one."""
    call()
    return True


def _machine() -> str:
    """Of the process that asks."""
    owner = engine.current.owner
    return str(engine.current.observe("machine", lambda world: world.facts.get(("machine", owner), HERE)))


class _Time(SimpleNamespace):
    @staticmethod
    def monotonic() -> float:
        return float(engine.current.now)

    @staticmethod
    def time() -> float:
        return float(engine.current.now)

    @staticmethod
    def sleep(seconds: float) -> None: ...


class _Datetime:
    """``rq.utils.datetime``: all of RQ asks its ``now()`` for the time."""

    def __init__(self, real: Any) -> None:
        self._real = real

        class Now(real.datetime):  # type: ignore[misc, name-defined]
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return real.datetime.fromtimestamp(engine.current.now, tz or real.timezone.utc)

        self.datetime = Now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Id:
    def __init__(self) -> None:
        self.hex = engine.current.new_id()

    def __str__(self) -> str:
        return self.hex


@contextmanager
def installed() -> Iterator[None]:
    """The world's stand-ins in place of the real ones, for the length of the block."""
    engine.SCRIPT_NAMES.update({text: name for name, text in SCRIPTS.items()})
    now, time, system = (lambda: engine.current.utc_now()), _Time(), _Os()

    def nothing(*arguments: Any, **options: Any) -> None: ...

    wanted: dict[Any, dict[str, Any]] = {
        rq.utils: {"datetime": _Datetime(rq.utils.datetime)},
        process_identity: {"start_time": _start_time, "_inspect": _inspect, "machine": _machine, "os": system},
        heartbeat: {"machine": _machine},
        registration: {"oom_kills": nothing},
        last_report: {
            "archive": Archive,
            "Spool": Spool,
            "bounded": _inline,
            "_stored": Archive.read,
            "utc_now": now,
        },
        dead_workers_job: {"oom_kills": nothing, "utc_now": now},
        reaper: {
            "machine": _machine,
            "archive": Archive,
            "time": time,
            "utc_now": now,
            # Time stands still while an actor waits: it gives up at once.
            "FREE_SECONDS": -1.0,
        },
        back_off.BackOff: {"wait": nothing},
        report_module: {
            "archive": Archive,
            "Spool": Spool,
            "bounded": _inline,
            "log_shutdown": nothing,
            "Clock": lambda: builder.Clock(time.monotonic(), now()),
        },
        session_module: {
            "OwnConnection": nothing,
            "JournalWriter": JournalWriter,
            "SharedMemory": lambda: SharedMemory(engine.current.owner, system.getpid()),
            "WorkerIdentity": lambda *about, **_: builder.WorkerIdentity(*about, _Id().hex, HERE, system.getpid()),
            "HorseProcess": lambda worker, memory: _HorseProcess(worker, memory),
            "HorseMonitor": _HorseMonitor,
            "ShutdownEffects": _Effects,
            "Heartbeat": NotedHeartbeat,
            "StallGuard": lambda *others, **named: SimpleNamespace(attend_alone=nothing, dismiss=nothing),
            "bounded": _inline,
            "close_database_connections": nothing,
            "os": system,
            "time": time,
        },
        worker_module: {"setup_loghandlers": nothing},
        rq_methods: {"os": system},
        coordinator: {"time": time},
        deadline: {"time": time},
        membership: {"time": time},
        current_job: {"time": time},
        dequeue: {"time": time},
        fail_job: {"_in_a_child": _here},
        run: {
            "_orphaned": lambda memory: _start_time(memory.worker_pid) == "",
            "_run_exit_hooks": nothing,
            "utc_now": now,
        },
        interruption: {"guard": None},
    }
    for name in ("rq.executions", "rq.worker", "rq.worker.base"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        wanted.setdefault(module, {}).update(uuid4=_Id, setup_loghandlers=nothing)
    # A version of the code in which a name is not there has no need of what stands in for it.
    places = [
        (module, name, value)
        for module, names in wanted.items()
        for name, value in names.items()
        if hasattr(module, name)
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


# A worker and its horse.


class NotedHeartbeat(Heartbeat):
    """As ours; that the worker was heard of stands in the books too."""

    def beat(self) -> Any:
        heard = super().beat()
        registration = self.registration
        engine.current.effect(lambda world: world.facts.__setitem__(("beaten", registration.worker), world.clock))
        engine.current.effect(lambda world: world.facts.__setitem__(("opened", registration.worker_id), True))
        return heard


class _Inbox:
    """What the worker was asked for: the explorer's signal, which is heard once."""

    unread = told_to_stop = False
    _heard = False

    def next(self) -> Received | None:
        owner = engine.current.owner
        if self._heard or not engine.current.observe("asked", lambda world: world.facts.get(("signalled", owner))):
            return None
        self._heard = True
        return Received("SIGTERM", float(engine.current.now))

    def wait(self, seconds: float, sockets: Any = ()) -> list[Any]:
        return []


class _Effects(effects.ShutdownEffects):
    """As ours, without threads, timers and exit hooks."""

    def prepare(self, coordinator: Any) -> None: ...

    def _guard(self, coordinator: Any) -> None:
        if self._guarded is None:
            self._report.shutdown_begins()
        self._guarded = coordinator.end()

    def _bound_redis(self) -> None: ...

    def _run_hooks(self, coordinator: Any) -> None:
        coordinator.send(events.HooksOver())

    def _store(self, coordinator: Any) -> None:
        self._report.store(coordinator.state, coordinator.end())


class _HorseProcess:
    """The horse, as its worker acts on it."""

    has_main_thread = False

    def __init__(self, worker: Any, memory: Any) -> None:
        self._worker = worker
        self._memory = memory

    def interrupt(self) -> None:
        self._memory.interrupt = True

    def kill(self, *, with_stacks: bool) -> None:
        pid = self._worker.horse_pid
        engine.current.effect(lambda world: end_process(world, pid, 9, by_its_worker=True))

    def stacks(self) -> str:
        return ""


class _HorseMonitor(monitor.HorseMonitor):
    """Waiting for the horse, where the explorer says what happens meanwhile: also which limit is reached."""

    def wait(self, current: Any) -> tuple[int | None, int | None, Any]:
        worker: Any = self._worker
        if not worker.horse_pid:
            return None, None, None
        pid: int = worker.horse_pid
        while True:
            request = Request(f"wait {pid}", lambda how: how, lambda world: self._ways(world, pid), remote=False)
            how = engine.current.request(request)
            if how == "beats":
                self._coordinator.attend()
                worker.beat()
                raise HorseMonitorTimeoutException
            if how in ("interrupts", "kills"):
                self._limit_reached(how)
                continue
            status = engine.current.observe("status", lambda world: world.facts.get(("status", pid), 9))
            rq_private.set_horse_pid(worker, 0)
            worker._stopped_job_id = engine.current.observe(
                "stopped", lambda world: world.facts.get(("stopped", worker.name))
            )
            current.horse_status = status
            return pid, status if current.own_end(self._coordinator.state.killed) else 0, None

    def _limit_reached(self, how: str) -> None:
        limits = self._coordinator.attend().limits
        assert limits is not None
        instant = limits.soft.at if how == "interrupts" else limits.hard.at
        self._coordinator._state, due = shutdown.step(self._coordinator.state, events.Tick(), instant)
        for effect in due:
            self._coordinator._effects.carry_out(effect, self._coordinator)

    def _ways(self, world: World, pid: int) -> tuple[str, ...]:
        if not world.alive(pid):
            return ("goes on",)
        ways = []
        name = self._worker.name
        if world.facts.get(("signalled", name)):
            interrupted = world.facts.get(("memory", name, "interrupt"))
            ways.append("kills" if interrupted else "interrupts")
        if world.clock - world.facts.get(("beaten", name), 0) >= HEARTBEAT_SECONDS:
            ways.append("beats")
        return tuple(ways)


class _Os:
    """``os``, with the pid of the process that asks."""

    @staticmethod
    def getpid() -> int:
        if JOB_CONTEXT:
            return JOB_CONTEXT[-1][0]
        actor = engine.current._actor
        return actor.pid if actor else RECOVERY_PID

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def end_process(world: World, pid: int, status: int, *, by_its_worker: bool = False) -> None:
    """A process ends: with a status of its own, or by SIGKILL (9)."""
    if world.machines.pop(pid, None) is None:
        return
    world.facts[("status", pid)] = status
    owner = world.facts.get(("horse", pid))
    if status and owner and world.alive(owner[1]) and not by_its_worker:
        # Its worker takes it for a crash of the job.
        world.facts[("crashed", job_of(world, owner[0]))] = True
    for job_id, runs in world.find("running").items():
        if any(run[0] == pid for run in runs):
            note_end(world, job_id, pid, "killed")
    # The horses of a worker that is gone are told by the kernel.
    for horse_pid, owner in world.find("horse").items():
        if world.alive(horse_pid) and owner[1] == pid:
            world.facts[("memory", owner[0], "interrupt")] = True


def job_of(world: World, name: str) -> str:
    """The job that a worker has forked a horse for last."""
    return str(world.facts[("at", name)])


def note_begun(world: World, name: str, worker_id: str, job_id: str) -> None:
    """In the books: a process is made for a job."""
    world.facts[("at", name)] = job_id
    world.facts[("begun", job_id)] = (*world.facts.get(("begun", job_id), ()), worker_id)


def note_start(world: World, job_id: str, pid: int, worker_id: str) -> None:
    """In the books: a job's own code begins."""
    runs = world.facts.get(("running", job_id), ())
    world.facts[("running", job_id)] = (*runs, (pid, worker_id))
    world.facts[("starts", job_id)] = (*world.facts.get(("starts", job_id), ()), worker_id)


def note_end(world: World, job_id: str, pid: int, how: str) -> None:
    """In the books: a job's own code has come to an end."""
    runs = world.facts.get(("running", job_id), ())
    worker_id = next((run[1] for run in runs if run[0] == pid), "?")
    world.facts[("running", job_id)] = tuple(run for run in runs if run[0] != pid)
    world.facts[("ends", job_id)] = (*world.facts.get(("ends", job_id), ()), (worker_id, how))


def the_job(job_id: str) -> str:
    """What every job does: it runs until the explorer lets it end."""
    runtime = engine.current
    pid, worker_id, memory_of = JOB_CONTEXT[-1]
    runtime.effect(lambda world: note_start(world, job_id, pid, worker_id))

    def ways(world: World) -> tuple[str, ...]:
        found = ["finishes"]
        if world.facts.get(("memory", memory_of, "interrupt")):
            found.append("is interrupted")
        if world.budget.get("raises", 0):
            found.append("raises")
        return tuple(found)

    how = runtime.request(Request(f"job {job_id}", lambda how: how, ways, remote=False))
    ended = {"is interrupted": "interrupted", "raises": "raised"}.get(how, "finished")
    runtime.effect(lambda world: note_end(world, job_id, pid, ended))
    if how == "is interrupted":
        assert interruption.guard is not None
        interruption.guard.on_signal(0, None)
    if how == "raises":
        raise ValueError("an error of the job's own")
    return "done"


JOB_CONTEXT: list[tuple[int, str, str]] = []
"""Pid, worker id and shared memory of the horse that is run at the moment."""


class ModelWorker(GracefulWorker):
    """A graceful worker in one process of the model. Its loop is short; each step of the loop is the real one."""

    death_penalty_class = NoPenalty
    log_job_description = False

    def __init__(self, name: str, pid: int, queues: tuple[str, ...], is_horse: bool = False) -> None:
        connection = engine.ModelRedis()
        super().__init__([Queue(each, connection=connection) for each in queues], name=name, connection=connection)
        self.pid = pid
        self._is_horse = is_horse

    should_run_maintenance_tasks = False  # type: ignore[assignment]

    def get_redis_server_version(self) -> tuple[int, int, int]:
        return (7, 0, 0)

    def procline(self, message: str) -> None: ...

    def open(self) -> None:
        """A worker starts, as in ``work()``."""
        self._session = session_module.Session(self, _Inbox(), conf.settings())  # type: ignore[arg-type]
        self.join(self._session.worker_id, self._session.memory)
        engine.current.effect(lambda world: world.facts.__setitem__(("worker id", self.worker_id), self.pid))
        self.bootstrap()

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...

    def check_for_suspension(self, burst: bool) -> None:
        """Nobody suspends the workers here."""

    def beat(self) -> None:
        """A heartbeat, whenever the explorer wants one."""
        self._at_work.membership._beat_at = 0.0
        self._at_work.membership.beat()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        runtime = engine.current
        current = self._at_work.current
        execution = current.execution if current else None
        assert execution is not None
        number = runtime.observe("pids", lambda world: world.facts.get(("pids",), 100))
        pid = number + 1
        # A forked process has the job already; here it is read again from what the worker had.
        data = tuple(
            (key, value if isinstance(value, bytes) else _bytes(value)) for key, value in job.to_dict().items()
        )
        arguments = (self.name, self.pid, pid, self.worker_id, tuple(self.queue_names()), job.id, queue.name, data)
        arguments += ((execution.id, execution.created_at),)
        rq_private.set_horse_pid(self, pid)
        runtime.effect(lambda world: begin_horse(world, self.name, self.pid, pid, arguments))
        if not runtime.exploring:
            run_horse(*arguments)

    def run(self, jobs: int) -> None:
        """One run of the worker: a burst of so many jobs at most."""
        try:
            self.open()
            try:
                self._at_work.loop.run(True, jobs, None)
            finally:
                self.teardown()
        except engine.Suspend:
            raise
        except BaseException as error:
            self._at_work.loop.ended_by(error)
        self._at_work.conclude()

    def close(self) -> None:
        """The end of a run that had no loop."""
        self._at_work.coordinator.send(events.LoopEnded(Reason.BURST))
        self.teardown()
        self._at_work.conclude()

    def take(self) -> tuple[Job, Queue] | None:
        """As the loop takes a job in a burst; None if there is none."""
        return self._at_work.dequeuer.next_job(None, None)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else str(value).encode()


def begin_horse(world: World, name: str, worker_pid: int, pid: int, arguments: tuple[Any, ...]) -> None:
    world.facts[("pids",)] = pid
    world.machines[pid] = world.machines[worker_pid]
    world.facts[("horse", pid)] = (name, worker_pid)
    worker_id, job_id = arguments[3], arguments[5]
    note_begun(world, name, worker_id, job_id)
    world.facts[("machine", f"{name}/horse{pid}")] = world.machines[pid]
    if engine.current.exploring:
        actor = f"{name}/horse{pid}"
        world.actors[actor] = engine.Actor(actor, pid, run_horse, arguments, world.clock)


def run_horse(
    name: str,
    worker_pid: int,
    pid: int,
    worker_id: str,
    queues: tuple[str, ...],
    job_id: str,
    queue_name: str,
    data: tuple[tuple[str, Any], ...],
    begun: tuple[str, Any],
) -> None:
    """A horse: RQ's ``perform_job`` in the graceful class, as ``main_work_horse`` calls it."""
    runtime = engine.current
    worker = ModelWorker(name, pid, queues, is_horse=True)
    memory = SharedMemory(name, worker_pid)
    worker.join(worker_id, memory)  # type: ignore[arg-type]
    job = Job(job_id, connection=worker.connection)
    job.restore({key.encode(): value for key, value in data})
    queue = Queue(queue_name, connection=worker.connection)
    execution = rq.executions.Execution(begun[0], job_id, worker.connection)
    if hasattr(execution, "worker_name"):
        execution.worker_name = name
    execution.created_at = execution.last_heartbeat = begun[1]
    rq_private.set_job(execution, job)
    worker.execution = execution
    JOB_CONTEXT.append((pid, worker_id, name))
    status = 0
    try:
        worker.perform_job(job, queue, *perform_arguments(execution))
    except engine.Suspend:
        raise
    except BaseException as error:
        if isinstance(error, AssertionError):
            raise
        status = 256
    finally:
        JOB_CONTEXT.pop()
        interruption.guard = None
    runtime.effect(lambda world: end_process(world, pid, status))


def perform_arguments(execution: Any) -> tuple[Any, ...]:
    """RQ 3 hands the execution on; 2.x keeps it in the worker."""
    return () if importlib.import_module("rq").__version__.startswith("2") else (execution,)


def beat_interval_over(world: World, name: str) -> bool:
    return world.clock - world.facts.get(("beaten", name), 0) >= HEARTBEAT_SECONDS


__all__ = [
    "INTERRUPTIONS_FIELD",
    "SCRIPTS",
    "Archive",
    "Journal",
    "ModelWorker",
    "Spool",
    "beat_interval_over",
    "end_process",
    "installed",
]
