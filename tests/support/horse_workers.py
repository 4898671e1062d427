"""Worker classes and jobs of the tests of the horse: stopped early, or with a way of their own to run a job."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import command
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker, Worker

from graceful.core.events import StopAsked
from graceful.core.phases import Reason
from graceful.jobs import on_interrupt
from graceful.worker.horse import back_off
from tests.support.jobs import note_end, note_start
from tests.support.waiting import wait_until


class StoppedAtFork(Worker):
    """Gets the command to stop its job when the job is prepared and no horse is forked yet."""

    def prepare_execution(self, job: Job) -> Execution:
        execution: Execution = super().prepare_execution(job)
        if hasattr(command, "send_stop_execution_command"):
            execution = self.execution
            command.send_stop_execution_command(self.connection, job.id, execution.id)
        else:
            # RQ 2 heeds the command only once the horse has begun (BaseWorker.get_current_job_id).
            self._stopped_job_id = job.id
            self.kill_horse()
        wait_until(lambda: self._stopped_job_id == job.id, 10, "the command has arrived")
        return execution


class LosesAFailure(Worker):
    """Redis cannot be reached just when the first failure is stored."""

    def cleanup_execution(self, job: Job, pipeline: Any, *execution: Any, **named: Any) -> None:
        super().cleanup_execution(job, pipeline, *execution, **named)
        if self.connection.incr("tests:failures") == 1:

            def lost(*args: Any, **kwargs: Any) -> None:
                raise redis.exceptions.ConnectionError("cut")

            pipeline.execute = lost


class LosesASuccess(Worker):
    """Redis stores the success, and cannot be reached for the next two commands."""

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        super().handle_job_success(job, *args, **kwargs)

        def unreachable(*args: Any, **kwargs: Any) -> None:
            del job.get_status
            raise redis.exceptions.ConnectionError("cut")

        job.get_status = unreachable  # type: ignore[method-assign]
        raise redis.exceptions.ConnectionError("cut")


class LosesTheReplyOfASuccess(Worker):
    """Redis stores the success, and the reply is lost; a job that says so is then cancelled by a user."""

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        super().handle_job_success(job, *args, **kwargs)
        if job.description == "cancelled":
            Job.fetch(job.id, connection=job.connection).cancel()
        raise redis.exceptions.ConnectionError("cut")


def joins_the_worker(seconds: float) -> None:
    """Joins the process group of its worker, and swallows the interruption."""
    os.setpgid(0, os.getpgid(os.getppid()))
    note_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    note_end()


class Payload:
    """Does something when it is unpickled.

    Args:
        deed: ``"exit"``, ``"leave"``, ``"crash"``, ``"hang"`` or ``"nothing"``.
    """

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return unpickled, (self.deed,)


def unpickled(deed: str) -> None:
    """What happens at the unpickling of a :class:`Payload`."""
    print(f"unpickled in {os.getpid()}: {deed}", flush=True)
    if deed == "exit":
        os._exit(0)
    if deed == "leave":
        sys.exit(3)
    if deed == "crash":
        os.abort()
    while deed == "hang":
        time.sleep(0.01)


@on_interrupt("fail")
def must_not_start_again(payload: Any) -> None:
    """Runs for long."""
    note_start()
    time.sleep(60)


class KilledAtFork(Worker):
    """Hears of a stop at the last instant before there is a horse, when the hard limit is reached already."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        worker: Any = self
        session = worker._session
        ago = session.settings.timeout - session.settings.hooks_timeout
        session.coordinator.send(StopAsked(time.monotonic() - ago, Reason.SIGNAL, "SIGTERM"))
        super().fork_work_horse(job, queue)


class OwnLoop(Worker):
    """A class with a loop of its own, which ends where there is no job."""

    def work(self, *args: Any, **options: Any) -> bool:
        self.bootstrap()
        done = False
        try:
            while (taken := self.dequeue_job_and_maintain_ttl(None)) is not None:
                self.execute_job(*taken)
                done = True
        finally:
            self.teardown()
        return done


class InThreads(Worker):
    """Hands each job to a thread and takes the next, as workers on gevent hand it to a greenlet."""

    death_penalty_class = TimerDeathPenalty

    def execute_job(self, job: Job, queue: Queue) -> None:
        run_in_a_thread(self, job, queue)


class SimpleInThreads(SimpleWorker):
    """As :class:`InThreads`, over the class without a horse."""

    death_penalty_class = TimerDeathPenalty

    def execute_job(self, job: Job, queue: Queue) -> None:
        run_in_a_thread(self, job, queue)


def run_in_a_thread(worker: Any, job: Job, queue: Queue) -> None:
    """Prepare the job here, perform it in a thread."""
    execution = worker.prepare_execution(job) or worker.execution
    arguments = (job, queue, execution) if hasattr(command, "send_stop_execution_command") else (job, queue)
    threading.Thread(target=worker.perform_job, args=arguments, name="job").start()


class ExecutesNothing(Worker):
    """Takes jobs and does nothing with them."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        pass


class PerformsNothing(Worker):
    """Its horses do nothing with the job."""

    def perform_job(self, *args: Any, **kwargs: Any) -> bool:
        return True


class HorseGoes(Worker):
    """Its horses end well before they have begun."""

    def main_work_horse(self, *args: Any, **kwargs: Any) -> None:
        os._exit(0)


class CannotBegin(Worker):
    """Its horses cannot speak to Redis as long as the key ``tests:no-horse`` is there."""

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        if self.connection.exists("tests:no-horse"):
            self.connection = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))


class CannotBeginQuickly(CannotBegin):
    """As :class:`CannotBegin`; its worker waits shorter."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        back_off.FIRST_WAIT_SECONDS = 0.01
        super().bootstrap(*args, **kwargs)


class OftenMaintained(Worker):
    """Runs its maintenance before each job."""

    should_run_maintenance_tasks = True
