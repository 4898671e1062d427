"""Exit hooks in a process that is not an RQ worker: a web server's worker, a script, a test run.

Python's ``atexit`` runs them, so they run at every orderly exit of the interpreter, and not after SIGKILL or
``os._exit()``. Their results are logged; only a worker stores a report.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from types import FrameType

from graceful.conf import settings
from graceful.core.deadline import Deadline
from graceful.core.outcome import WENT_WRONG
from graceful.core.phases import Reason
from graceful.core.records import HookResult, HookSpec, JobTally, Shutdown
from graceful.exceptions import InvalidSettings
from graceful.hooks import log, runner, watchdog
from graceful.hooks.registry import exit_hooks

logger = logging.getLogger("graceful.hooks")

WATCHDOG_SECONDS = 1.0
"""The watchdog ends the process this long after the deadline of the hooks."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_registered_pids: set[int] = set()
_received: list[int] = []


def run_at_exit(*, signals: bool = False) -> None:
    """Run the exit hooks when this process ends, once, unless an RQ worker in it has run them.

    Calling it again has no effect. A forked child does not run its parent's; it may call this for itself, as a
    server that forks after loading the application has to (gunicorn's ``post_worker_init`` with ``preload_app``,
    uWSGI's ``postfork``). All hooks together may take ``GRACEFUL_HOOKS_TIMEOUT`` seconds. From Python 3.12 on a hook
    that runs here cannot start threads, and non-daemon threads have been joined before.

    Args:
        signals: SIGTERM and SIGHUP, if nothing handles them, become ``SystemExit(128 + signal)``, so that hooks and
            ``finally`` blocks run. For scripts: servers handle these signals themselves. Main thread only.
    """
    if signals:
        _exit_on_signals()
    if os.getpid() not in _registered_pids:
        _registered_pids.add(os.getpid())
        atexit.register(_run, os.getpid())


def _run(pid: int) -> None:
    if os.getpid() != pid or not runner.claim():
        return
    try:
        specs, seconds = exit_hooks(), settings().hooks_timeout
    except InvalidSettings as error:
        logger.error(log.WRONG_SETTINGS, error)
        return
    if not specs:
        return
    deadline = Deadline.after(seconds)
    watchdog.arm(Deadline.after(seconds + WATCHDOG_SECONDS))
    try:
        results = runner.run_hooks(specs, shutdown=_shutdown, deadline=deadline, on_start=_started, on_end=_ended)
    finally:
        watchdog.disarm()
    _log(results)


def _shutdown(deadline: Deadline) -> Shutdown:
    name = signal.Signals(_received[0]).name if _received else None
    return Shutdown(reason=Reason.EXIT, signal=name, worker="", queues=(), jobs=JobTally(), deadline=deadline)


def _started(spec: HookSpec, seconds: float) -> None:
    logger.debug(log.STARTS, spec.name, seconds)


def _ended(result: HookResult) -> None:
    """Nothing to do: the runner logs each hook, and there is no journal here."""


def _log(results: tuple[HookResult, ...]) -> None:
    bad = [result.name for result in results if result.outcome in WENT_WRONG]
    facts = {"reason": Reason.EXIT.value, "hooks": {result.name: result.outcome.value for result in results}}
    if bad:
        logger.error(log.AT_EXIT_NOT_OK, len(results), ", ".join(bad), extra=facts)
    else:
        logger.info(log.AT_EXIT_OK, len(results), extra=facts)


def _exit_on_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_at_exit(signals=True) sets signal handlers, which only the main thread may")
    for signum in SIGNALS:
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, _exit)


def _exit(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    # A second signal must not cut the hooks short.
    if len(_received) == 1:
        sys.exit(128 + signum)
