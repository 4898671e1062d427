"""Who takes part. Each is a plain function that calls the real code; the explorer stops it at each Redis command."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.scheduler import RQScheduler

from tests.model import code_under_test, engine
from tests.model.code_under_test import JOB_CONTEXT, ModelWorker, NoPenalty, end_process, perform_arguments
from tests.model.engine import ModelRedis, Request, World
from tests.model.previous import RQ, PreviousWorker

OVERDUE_SECONDS = 60
JOB_FUNCTION = "tests.model.code_under_test.the_job"


def graceful_worker(name: str, pid: int, queues: tuple[str, ...], jobs: int) -> None:
    """A graceful worker: it starts, looks after the dead, runs so many jobs, and leaves."""
    ModelWorker(name, pid, queues).run(jobs)
    engine.current.effect(lambda world: end_process(world, pid, 0))


def reaper(name: str, pid: int, queues: tuple[str, ...]) -> None:
    """A graceful worker without work: it beats whenever it is time, and looks after those that died."""
    worker = ModelWorker(name, pid, queues)

    def ways(world: World) -> tuple[str, ...]:
        if code_under_test.beat_interval_over(world, name):
            return ("beats",)
        others = any(not actor.done and actor.pid != pid and world.alive(actor.pid) for actor in world.actors.values())
        return () if others or world.budget.get("time", 0) else ("leaves",)

    try:
        worker.open()
        while engine.current.request(Request(f"idle {name}", lambda how: how, ways, remote=False)) == "beats":
            worker.beat()
    except RedisError as error:
        worker._at_work.loop.ended_by(error)
    worker.close()
    engine.current.effect(lambda world: end_process(world, pid, 0))


def enqueuer(pid: int, queue: str, job_id: str) -> None:
    """Somebody enqueues a job."""
    Queue(queue, connection=ModelRedis()).enqueue(JOB_FUNCTION, job_id, job_id=job_id)
    engine.current.effect(lambda world: end_process(world, pid, 0))


# Foreign actors: what an ordinary installation of RQ and django-rq has besides.


def scrape(pid: int, queue: str, times: int) -> None:
    """A Prometheus scrape, the dashboard or ``stats.json``: RQ's registries are cleaned up as they are counted."""
    connection = ModelRedis()
    for _ in range(times):
        for registry in (StartedJobRegistry, FinishedJobRegistry, FailedJobRegistry):
            registry(queue, connection=connection, death_penalty_class=NoPenalty).cleanup()
    engine.current.effect(lambda world: end_process(world, pid, 0))


class StockWorker(Worker):
    """RQ's own worker, beside ours."""

    death_penalty_class = NoPenalty  # type: ignore[assignment]

    def __init__(self, name: str, pid: int, queues: tuple[str, ...]) -> None:
        connection = ModelRedis()
        super().__init__([Queue(each, connection=connection) for each in queues], name=name, connection=connection)
        self.pid = pid

    def procline(self, message: str) -> None: ...

    def get_redis_server_version(self) -> tuple[int, int, int]:
        return (7, 0, 0)


def maintenance(pid: int, queue: str, times: int) -> None:
    """The maintenance of a stock worker: registries and intermediate queues are cleaned up."""
    worker = StockWorker(f"maintenance{pid}", pid, (queue,))
    for _ in range(times):
        worker.clean_registries()
    engine.current.effect(lambda world: end_process(world, pid, 0))


def stock_worker(name: str, pid: int, queues: tuple[str, ...], jobs: int) -> None:
    """RQ's own worker at its work, in one process with its job (as its ``SimpleWorker`` does it)."""
    worker = StockWorker(name, pid, queues)
    worker.register_birth()
    for _ in range(jobs):
        taken = Queue.dequeue_any(worker.queues, None, connection=worker.connection, death_penalty_class=NoPenalty)
        if taken is None:
            break
        job, queue = taken
        execution = worker.prepare_execution(job)
        JOB_CONTEXT.append((pid, name, name))
        try:
            worker.perform_job(job, queue, *perform_arguments(execution))
        finally:
            JOB_CONTEXT.pop()
    worker.register_death()
    engine.current.effect(lambda world: end_process(world, pid, 0))


def user(pid: int, job_id: str, what: str) -> None:
    """Somebody cancels, deletes or requeues a job in django-rq's pages, or stops it while it runs."""
    runtime = engine.current
    try:
        job = Job.fetch(job_id, connection=ModelRedis())
        if what == "stop":
            runtime.request(Request(f"stop {job_id}", lambda how: _stop(runtime.world, job_id), remote=False))
        else:
            runtime.effect(lambda world: world.facts.__setitem__(("asked", job_id), what))
            getattr(job, what)()
    except (NoSuchJobError, InvalidJobOperation, ValueError, KeyError):
        pass  # ValueError, KeyError: RQ's own race with the end of an execution (``Execution.refresh``).
    except RedisError:
        pass  # A page that says so; nobody tries again.
    runtime.effect(lambda world: end_process(world, pid, 0))


def _stop(world: World, job_id: str) -> None:
    """RQ's stop-job command: the worker notes the id and kills the horse (``handle_stop_job_command``)."""
    world.facts[("asked", job_id)] = "stop"
    for run in world.facts.get(("running", job_id), ()):
        if run[0] in world.find("horse"):
            owner = world.facts[("horse", run[0])]
            world.facts[("stopped", owner[0])] = job_id
            end_process(world, run[0], 9)


def scheduler(pid: int, queue: str) -> None:
    """RQ's scheduler: scheduled jobs, retries among them, go to their queue when it is time."""
    connection = ModelRedis()
    rq_scheduler = RQScheduler([queue], connection=connection)
    rq_scheduler._acquired_locks.add(queue)
    rq_scheduler.prepare_registries([queue])
    rq_scheduler.enqueue_scheduled_jobs()
    engine.current.effect(lambda world: end_process(world, pid, 0))


def previous_worker(name: str, pid: int, queue: str, machine: str, jobs: int) -> None:
    """A worker of the version before, in a rolling deploy; worker and job are one process, as in ``SimpleWorker``."""
    worker = PreviousWorker(name, pid, machine, queue)
    rq_worker = RQ([worker.queue], name=name, connection=worker.connection)
    rq_worker.pid = pid
    worker.beat()
    rq_worker.register_birth()
    runtime = engine.current
    runtime.effect(lambda world: world.facts.__setitem__(("worker id", worker.worker_id), pid))
    runtime.effect(lambda world: world.facts.__setitem__(("beaten", name), world.clock))
    for _ in range(jobs):
        job_id = worker.fetch()
        if job_id is None:
            break
        job = Job.fetch(job_id, connection=worker.connection)
        runtime.effect(lambda world, job_id=job_id: code_under_test.note_begun(world, name, worker.worker_id, job_id))
        execution = rq_worker.prepare_execution(job)
        if not worker.claim(job_id, pid):
            break
        JOB_CONTEXT.append((pid, worker.worker_id, name))
        try:
            rq_worker.perform_job(job, worker.queue, *perform_arguments(execution))
        finally:
            JOB_CONTEXT.pop()
    rq_worker.register_death()
    worker.leave()
    runtime.effect(lambda world: end_process(world, pid, 0))


# What comes after all that.


def recovery(queues: tuple[str, ...]) -> list[Any]:
    """Everything has come to a standstill: minutes go by, a worker starts, and does what is left. Without a stop.

    Returns:
        errors that a worker would have ended by.
    """
    runtime = engine.current
    world = runtime.world
    pid = code_under_test.RECOVERY_PID
    world.machines[pid] = code_under_test.HERE
    name = "recovery"
    errors: list[Any] = []
    worker = ModelWorker(name, pid, queues)
    try:
        worker.open()
        for _ in range(3):
            pass_time(world, 25)
            worker.beat()
        world.facts[("ghosts",)] = _ghosts(world)
        cleaner = StockWorker("cleaner", 901, queues)
        cleaner.clean_registries()
        pass_time(world, 150)
        cleaner.clean_registries()
        for queue in queues:
            scheduler(902, queue)
        while (taken := worker.take()) is not None:
            worker.execute_job(*taken)
        code_under_test.Archive.archive_pending(code_under_test.Spool(None), 1)
        code_under_test.Archive.archive_pending(code_under_test.Journal(worker.connection), 1)
    except Exception as error:
        errors.append(error)
    worker.close()
    end_process(world, pid, 0)
    return errors


def _ghosts(world: World) -> tuple[str, ...]:
    """Keys of RQ that still tell of graceful workers that are dead, before RQ's maintenance removes some of them."""
    client = engine.current.server.client
    found = []
    for worker_id, pid in world.find("worker id").items():
        name = worker_id.partition(".")[0]
        if world.alive(pid) or f"{name}.previous" == worker_id:
            continue
        key = f"rq:worker:{name}"
        lists = ["rq:workers", *(f"rq:workers:{queue}" for queue in ("default", "low"))]
        found += [f"{each} has {key}" for each in lists if client.sismember(each, key)]
        if client.exists(key) and not client.hexists(key, "death"):
            found.append(key)
    return tuple(found)


def pass_time(world: World, seconds: int) -> None:
    """Time goes by for the server and for everybody."""
    world.clock += seconds
    engine.current.server.pass_time(seconds, world.clock)
    for worker_id, pid in world.find("worker id").items():
        name = worker_id.partition(".")[0]
        remote = world.facts.get(("machine", name), code_under_test.HERE) != code_under_test.HERE
        if remote and world.alive(pid) and world.clock - world.facts.get(("beaten", name), 0) >= OVERDUE_SECONDS:
            world.facts[("cut off for long", worker_id)] = True
