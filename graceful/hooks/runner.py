"""Runs exit hooks one after the other: no hook affects another, and all end by one deadline.

A hook that exceeds its timeout is ended in three steps, each for what the one before cannot interrupt:

1. the alarm raises ``HookTimedOut`` in it, repeatedly (Python code, and system calls that a signal interrupts);
2. a standby thread takes over from a main thread that is stuck in a hook, runs the remaining hooks itself and then
   calls ``take_over``, which ends the process;
3. the watchdog (:mod:`graceful.hooks.watchdog`) ends the process if the GIL is held and no Python code can run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from graceful import signals
from graceful.core import limits
from graceful.core.deadline import Deadline
from graceful.core.phases import HookOutcome
from graceful.core.records import HookResult, HookSpec, Shutdown
from graceful.core.text import one_line
from graceful.hooks import log
from graceful.hooks.alarm import Alarm
from graceful.hooks.attempt import Attempt
from graceful.hooks.calls import INVOKE_CODE
from graceful.hooks.stacks import frame_stack

logger = logging.getLogger("graceful.hooks")

PATIENCE = 0.5
SHORTEST_PATIENCE = 0.05
"""Bounds of the seconds from a hook's alarm until the standby thread takes over: a tenth of the time of all hooks."""

_claims: dict[int, object] = {}


def claim() -> bool:
    """Claim this process's exit hooks, which run once per process; False if they are claimed already.

    A forked child has its own.
    """
    token = object()
    # setdefault is atomic: two threads cannot both claim, and there is no lock that a fork could leave locked.
    return _claims.setdefault(os.getpid(), token) is token


def release() -> None:
    """Release the claim, in a process that lives on and may run its exit hooks again, such as a test runner."""
    _claims.pop(os.getpid(), None)


TakeOver = Callable[[tuple[HookResult, ...]], NoReturn]


def run_hooks(
    specs: Sequence[HookSpec],
    *,
    shutdown: Callable[[Deadline], Shutdown],
    deadline: Deadline,
    on_start: Callable[[HookSpec, float], None],
    on_end: Callable[[HookResult], None],
    take_over: TakeOver | None = None,
    of_horse: bool = False,
) -> tuple[HookResult, ...]:
    """Run exit hooks in order and return their results; nothing that a hook raises propagates.

    Call it in the main thread: the alarm works only there. A child that a hook forked never returns from here.

    Args:
        specs: the hooks.
        shutdown: builds the hook's argument from the hook's own deadline.
        deadline: of all hooks together.
        on_start: called before each hook, with the seconds that it may take.
        on_end: called after each hook, skipped ones included.
        take_over: ends the process, given all results, after the main thread had to be abandoned. Without it there is
            no standby thread, and a hook that no signal interrupts blocks the caller.
        of_horse: these run after each job: they are logged as horse exit hooks, at level DEBUG if they succeed.

    Returns:
        one result per hook, in order.
    """
    return _Run(specs, shutdown, deadline, on_start, on_end, take_over, of_horse).run()


@dataclass(frozen=True)
class _Stage:
    """What the thread in charge is doing, and until when; ``spec`` is None between two hooks."""

    limit: Deadline
    spec: HookSpec | None = None
    seconds: float = 0.0
    began: float = 0.0


class _Run:
    """One run of all hooks, and which thread is in charge of it."""

    def __init__(
        self,
        specs: Sequence[HookSpec],
        shutdown: Callable[[Deadline], Shutdown],
        deadline: Deadline,
        on_start: Callable[[HookSpec, float], None],
        on_end: Callable[[HookResult], None],
        take_over: TakeOver | None,
        of_horse: bool,
    ) -> None:
        self.waiting = deque(specs)
        self.results: list[HookResult] = []
        self.shutdown = shutdown
        self.on_start = on_start
        self.on_end = on_end
        self.take_over = take_over
        self.of_horse = of_horse
        self.patience = min(PATIENCE, max(SHORTEST_PATIENCE, deadline.left() / 10)) if take_over else 0.0
        # The standby thread waits for its patience before the deadline, not after it.
        self.deadline = deadline.earlier(self.patience)
        self.pid = os.getpid()
        self.alarm = Alarm()
        self.changed = threading.Condition(threading.Lock())
        self.in_charge = threading.get_ident()
        self.stage = self._between_hooks()
        self.over = False

    def run(self) -> tuple[HookResult, ...]:
        with self.alarm:
            standby = self._start_standby()
            self._run_all()
            self._close()
        if standby is not None:
            standby.join(timeout=1)
        return tuple(self.results)

    def _run_all(self) -> None:
        while self.waiting:
            self._run_one(self.waiting.popleft())

    def _run_one(self, spec: HookSpec) -> None:
        seconds = limits.hook_seconds(self.deadline.left(), len(self.waiting) + 1, spec.timeout)
        if seconds <= 0:
            self._finish(HookResult(spec.name, HookOutcome.SKIPPED, detail="no time left"))
            return
        _quietly(self.on_start, spec, seconds)
        limit = self.deadline.cut_to(seconds)
        began = time.monotonic()
        self._enter(_Stage(limit, spec, seconds, began))
        attempt = Attempt(spec, seconds)
        reason = f"the exit hook {spec.name} took longer than {seconds:.3g} s"
        # A standby thread has no alarm; the next standby thread watches it.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread:
            self.alarm.set(limit.left(), reason, attempt.note_stack)
        attempt.run(self.shutdown(limit))
        if os.getpid() != self.pid:
            # A child that the hook forked and that returned: it must not go on with its parent's shutdown.
            os._exit(os.EX_SOFTWARE)
        if in_main_thread:
            self.alarm.off()
        self._finish(attempt.result(time.monotonic() - began), attempt.error)

    def _finish(self, result: HookResult, error: BaseException | None = None) -> None:
        """Record and publish a result; a thread that is no longer in charge stops here."""
        self._enter(self._between_hooks(), result)
        # The log comes after the report: a log pipe that nobody reads blocks its writer.
        _quietly(self.on_end, result)
        _quietly(_log, result, error, self.of_horse)
        _quietly(_send, result)

    def _between_hooks(self) -> _Stage:
        seconds = limits.hook_seconds(self.deadline.left(), len(self.waiting) + 1, None)
        return _Stage(Deadline.after(seconds))

    def _enter(self, stage: _Stage, result: HookResult | None = None) -> None:
        with self.changed:
            if self.in_charge == threading.get_ident():
                if result is not None:
                    self.results.append(result)
                self.stage = stage
                self.changed.notify_all()
                return
        _park()

    def _close(self) -> None:
        with self.changed:
            if self.in_charge == threading.get_ident():
                self.over = True
                self.changed.notify_all()
                return
        _park()

    def _start_standby(self) -> threading.Thread | None:
        if self.take_over is None:
            return None
        standby = threading.Thread(target=self._watch, name="graceful-hooks-standby", daemon=True)
        try:
            standby.start()
        except RuntimeError:  # no thread can be started any more
            logger.warning(log.NO_STANDBY)
            return None
        return standby

    def _watch(self) -> None:
        """Wait until all hooks have run, or take charge if the thread that runs them is stuck in one."""
        # The alarm is for the main thread; the kernel may deliver it to any thread that does not block it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        with self.changed:
            while not self.over:
                left = self.stage.limit.at + self.patience - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            else:
                return
            stuck, stage = self.in_charge, self.stage
            self.in_charge = threading.get_ident()
        self.alarm.off()
        try:
            self._take_charge(stuck, stage)
        finally:
            # take_over does not return; if it does, or raises, no thread could go on.
            os._exit(os.EX_SOFTWARE)

    def _take_charge(self, stuck: int, stage: _Stage) -> None:
        stack = frame_stack(sys._current_frames().get(stuck), below=INVOKE_CODE)
        with self.changed:
            self.stage = self._between_hooks()
        self._start_standby()
        if stage.spec is not None:
            attempt = Attempt(stage.spec, stage.seconds)
            attempt.abandon(stack)
            self._finish(attempt.result(time.monotonic() - stage.began))
        self._run_all()
        self._close()
        assert self.take_over is not None
        self.take_over(tuple(self.results))


def _log(result: HookResult, error: BaseException | None, of_horse: bool) -> None:
    facts = {"hook": result.name, "outcome": result.outcome.value, "seconds": result.seconds}
    hook = f"{'Horse exit' if of_horse else 'Exit'} hook {result.name}"
    level = logging.DEBUG if of_horse else logging.INFO
    if result.outcome is HookOutcome.FAILED:
        logger.error(log.FAILED, hook, one_line(result.error), exc_info=error, extra=facts)
    elif result.outcome is HookOutcome.TIMED_OUT:
        logger.error(log.TIMED_OUT, hook, result.error, result.traceback, extra=facts)
    elif result.outcome is HookOutcome.SKIPPED:
        logger.log(level, log.SKIPPED, hook, one_line(result.detail), extra=facts)
    else:
        said = f": {one_line(result.detail)}" if result.detail else ""
        logger.log(level, log.OK, hook, result.seconds * 1000, said, extra=facts)


def _send(result: HookResult) -> None:
    signals.send(signals.hook_finished, HookResult, result=result)


def _quietly(call: Callable[..., object], *args: object) -> None:
    """Call it and swallow every error: after a hook that closed the log's stream even logging may raise."""
    try:
        call(*args)
    except BaseException:
        try:
            logger.warning(log.LISTENER_FAILED, call, exc_info=True)
        except BaseException:
            pass


def _park() -> NoReturn:
    """Block until another thread ends the process."""
    while True:
        time.sleep(3600)
