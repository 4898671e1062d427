"""What follows from the decisions of the state machine, carried out."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import NoReturn

from rq.worker import BaseWorker

from graceful import signals
from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.events import Effect, HookEnded, HooksOver, HookStarted, LoopEnded
from graceful.core.limits import distinct, hooks_deadline
from graceful.core.phases import Reason
from graceful.core.records import HookResult, HookSpec
from graceful.core.shutdown import State
from graceful.hooks import registry, runner, tracing, watchdog
from graceful.jobs.shared_memory import SharedMemory
from graceful.reports.builder import shutdown_of
from graceful.threads import bounded
from graceful.worker.cluster import rq_scheduler
from graceful.worker.compat import redis_connection
from graceful.worker.horse.process import JobProcess
from graceful.worker.shutdown.coordinator import Coordinator
from graceful.worker.shutdown.exit import leave, leave_by
from graceful.worker.shutdown.guardian import Guardian
from graceful.worker.shutdown.report import WorkerReport

log = logging.getLogger("graceful.worker")
REQUESTED = "Worker %s [PID %d]: shutdown requested (%s), %.1f s left%s"
FASTER = "; Ctrl+C again interrupts the job at once"
FROM_POOL = "SIGINT from its pool"
REPEATED = "Worker %s: asked to stop again%s"
TOO_SOON = ", too soon to count"
QUIETED = "Worker %s: quiet, takes no new job"
RESUMED = "Worker %s: takes jobs again"
STACKS = "Worker %s: stacks of the worker\n%s"
HORSE_STACKS = "Worker %s: stacks of the work horse\n%s"
HOOKS_FAILED = "Worker %s: the exit hooks could not be run"
FORCED = "Worker %s: the shutdown was forced: %s"

SPANS_NOT_EXPORTED = "Worker %s: the spans of its shutdown could not be exported: %s"

SPANS_SECONDS = 1.0
"""How long the export of OpenTelemetry's spans may take once the report is stored."""
GUARDIAN_SECONDS = 0.4
"""How long before the end of the grace period the guardian takes over; a tenth of a shorter one."""
LATE_SECONDS = 0.25
"""What the guardian has before the watchdog where the grace period is over before the worker hears of it: it was
stopped (SIGSTOP, a machine that slept)."""
REDIS_SHARE = 5
"""One Redis command may take this part of the hooks' time once the shutdown was requested: a second by default."""
REDIS_SECONDS = 0.1
"""And never less than this."""


def redis_seconds(settings: Settings) -> float:
    """How long one Redis command may take once the shutdown was requested, in seconds."""
    return max(REDIS_SECONDS, settings.hooks_timeout / REDIS_SHARE)


class ShutdownEffects:
    """Carries the effects of one worker's shutdown out.

    Args:
        worker: the worker.
        settings: the settings that hold for it.
        memory: the memory shared with the job's process.
        job_process: the process that its jobs run in.
        report: its report.
    """

    def __init__(
        self,
        worker: BaseWorker,
        settings: Settings,
        memory: SharedMemory,
        job_process: JobProcess,
        report: WorkerReport,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._memory = memory
        self._job_process = job_process
        self._report = report
        self._guardian = Guardian()
        self._guarded: Deadline | None = None
        self._announcing = threading.Lock()
        self._trace: tracing.Trace | None = None

    def prepare(self, coordinator: Coordinator) -> None:
        """Start the thread that the end needs, while there are threads to be had."""
        self._guardian.start(coordinator)
        self._trace = tracing.begin(lambda: self._report.of(coordinator.state))

    def carry_out(self, effect: Effect, coordinator: Coordinator) -> None:
        """See :class:`graceful.worker.shutdown.coordinator.Effects`."""
        match effect:
            case Effect.GUARD:
                self._guard(coordinator)
            case Effect.ANNOUNCE:
                with self._announcing:  # The limits as they are by now, whichever thread comes last.
                    assert coordinator.state.limits is not None
                    self._memory.announce(coordinator.state.limits)
            case Effect.BOUND_REDIS:
                self._bound_redis()
            case Effect.WRITE_JOURNAL:
                self._report.write_ahead(coordinator.state)
            case Effect.STOP_SCHEDULER:
                rq_scheduler.ask_to_stop(self._worker)
            case Effect.REQUESTED:
                self._requested(coordinator)
            case Effect.REPEATED:
                stops = coordinator.state.stops
                counted = distinct(stops)[-1] == stops[-1]
                log.warning(REPEATED, self._worker.name, "" if counted else TOO_SOON)
            case Effect.QUIETED | Effect.RESUMED:
                quiet = effect is Effect.QUIETED
                log.info(QUIETED if quiet else RESUMED, self._worker.name)
                signals.send(signals.quiet_changed, ShutdownEffects, worker=self._worker.name, quiet=quiet)
            case Effect.STACKS:
                self._log_stacks(coordinator)
            case Effect.INTERRUPT:
                self._job_process.interrupt()
            case Effect.KILL:
                self._job_process.kill(with_stacks=not coordinator.state.sealed)
            case Effect.RUN_HOOKS:
                self._drained(coordinator.state)
                try:
                    self._run_hooks(coordinator)
                except Exception:
                    log.exception(HOOKS_FAILED, self._worker.name)
                    coordinator.send(LoopEnded(Reason.ERROR))
                coordinator.send(HooksOver())
            case Effect.STORE:
                self._store(coordinator)
            case Effect.EXIT:
                self._exit(coordinator)
            case Effect.AWAIT_EXIT:
                threading.Event().wait()

    def _guard(self, coordinator: Coordinator) -> None:
        """Make sure that the process is over by the end of the grace period, whatever the main thread does."""
        if self._guarded is None:
            self._report.shutdown_begins()
        end = coordinator.end()
        # What the main thread does in time must be over before the guardian looks.
        self._guarded = end.earlier(min(GUARDIAN_SECONDS, end.left() / 10))
        self._guardian.expect(self._guarded, coordinator)
        watchdog.arm(max(end, Deadline.after(LATE_SECONDS)))

    def _bound_redis(self) -> None:
        """From now on no Redis command may hold the worker for long, whatever RQ set for its blocking ones."""
        redis_connection.bound(self._worker.connection.connection_pool, redis_seconds(self._settings))

    def _requested(self, coordinator: Coordinator) -> None:
        state = coordinator.state
        signals.send(
            signals.shutdown_requested,
            ShutdownEffects,
            worker=self._worker.name,
            reason=state.reason,
            signal_name=state.signal,
        )
        if state.job is not None or (state.reason is not None and state.reason.asked_for):
            pool = self._report.worker.stopped_by_pool(state.signal)
            why = FROM_POOL if pool else state.signal or state.reason
            faster = FASTER if state.signal == "SIGINT" and state.job is not None and not pool else ""
            log.info(REQUESTED, self._worker.name, os.getpid(), why, coordinator.end().left(), faster)

    def _log_stacks(self, coordinator: Coordinator) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        text = "\n".join(
            f"Thread {ident} ({names.get(ident, 'unknown')}):\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
        )
        log.warning(STACKS, self._worker.name, text)
        if coordinator.state.job is not None and (stacks := self._job_process.stacks()):
            log.warning(HORSE_STACKS, self._worker.name, stacks)

    def _drained(self, state: State) -> None:
        seconds = max(0.0, (state.drained_at or 0.0) - state.stops[0]) if state.stops else 0.0
        signals.send(
            signals.worker_drained, ShutdownEffects, worker=self._worker.name, jobs=state.jobs, seconds=seconds
        )

    def _run_hooks(self, coordinator: Coordinator) -> None:
        runner.claim()  # So that graceful.run_at_exit() does not run them again.
        specs = registry.exit_hooks()
        if specs:

            def started(spec: HookSpec, seconds: float) -> None:
                coordinator.send(HookStarted(spec.name))

            def ended(result: HookResult) -> None:
                coordinator.send(HookEnded(result))
                if self._trace is not None:
                    self._trace.hook_ended(result)

            def take_over(results: tuple[HookResult, ...]) -> NoReturn:
                """In a second thread: the main thread is lost in a hook."""
                coordinator.send(HooksOver())
                self._exit(coordinator)

            runner.run_hooks(
                specs,
                shutdown=lambda deadline: shutdown_of(coordinator.state, self._report.worker, deadline),
                deadline=hooks_deadline(coordinator.end(), self._settings.hooks_timeout),
                on_start=started,
                on_end=ended,
                take_over=take_over,
            )

    def _store(self, coordinator: Coordinator) -> None:
        state, end = coordinator.state, coordinator.end()
        assert state.exit_code is not None
        assert self._guarded is not None
        # From here on the report may be read, and the process ends with its exit code whatever holds it up: even a
        # log that nobody reads.
        last_resort = leave_by(state.exit_code, end.left())
        if state.forced:
            self._report.store(state, end)
            self._export_spans(end)
            log.error(FORCED, self._worker.name, state.forced)
            return
        self._report.store(state, self._guarded)
        self._export_spans(self._guarded)
        if not self._guardian.dismiss():
            threading.Event().wait()  # The guardian was quicker by a moment: what it does is the end.
        watchdog.disarm()
        last_resort.cancel()

    def _export_spans(self, until: Deadline) -> None:
        if tracing.provider() is not None:
            seconds = max(0.0, min(SPANS_SECONDS, until.left() / 2))
            exporting = bounded(lambda: tracing.emit_and_flush(seconds), seconds)
            if exporting.error is not None:
                log.warning(SPANS_NOT_EXPORTED, self._worker.name, exporting.error)

    def _exit(self, coordinator: Coordinator) -> NoReturn:
        self._job_process.store_late_end(coordinator.end().left() / 2)
        leave(coordinator.state.exit_code or 0, coordinator.end().left())
