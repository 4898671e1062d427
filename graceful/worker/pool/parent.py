"""``runworker_graceful --workers N``: workers that are forked from one process, which has loaded Django once.

The parent takes no job and holds no connection. It passes signals on, replaces workers that end, and is the last to go,
with the exit code of the worst. Each worker is as one that was started alone, with a report of its own.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from django.db import connections
from django_rq import get_connection
from redis.exceptions import RedisError

from graceful.conf import Settings
from graceful.core.deadline import Deadline
from graceful.core.pool import Next, after_end, worst
from graceful.core.text import signal_name
from graceful.worker.cluster.reaper import reap
from graceful.worker.compat.redis_connection import client_of_its_own
from graceful.worker.horse import parent_death
from graceful.worker.pool.place import Place, speak
from graceful.worker.pool.reload import OWN, NewCode, adopted, execute, start_directory
from graceful.worker.pool.signs import PoolSigns
from graceful.worker.shutdown import os_signals

log = logging.getLogger("graceful.worker")
STARTED = "Worker pool [PID %d]: %d workers"
STOPPING = "Worker pool [PID %d]: %s received, %d workers are stopped, %.1f s left"
REPLACED = "Worker pool: worker process %d ended with exit code %d, another one is started in %.0f s"
DIED = "Worker pool: worker process %d was ended by %s"
STRAGGLERS = "Worker pool: %d workers did not end in time, killing them"
GIVEN_UP = "Worker pool: worker process %d has found wrong settings, stopping"
NOT_REAPED = "Worker pool: the report of a worker that was killed is left to a worker, Redis is unreachable: %s"
STACKS = "Worker pool: threads of the parent:\n%s"
RELOADING = "Worker pool: SIGHUP received, looking whether the new code can be loaded"
KEPT = "Worker pool: the workers go on with the code that they have, the new one cannot be loaded:\n%s"
RENEWING = "Worker pool [PID %d]: new code, %d workers are replaced one after the other"
RESIZED = "Worker pool: %d workers from now on"

MARGIN_SECONDS = 0.3
"""How much longer the parent waits than each worker may take: their own guards come first."""
REAP_SECONDS = 2.0
LOOK_SECONDS = 1.0
ADD, TAKE, STACKS_OF_ALL, RELOAD = signal.SIGTTIN, *OWN


class Pool:
    """The parent.

    Args:
        inbox: what is asked of it.
        settings: the settings that hold for its workers.
        queue: one of their queues, on whose server their reports are.
        start: runs the worker of that number, at first quiet or not; never returns. Called in the new process.
        signs: tells probes and systemd.
        ends_by_itself: workers may end for good, after a burst or idleness.
    """

    def __init__(
        self,
        inbox: os_signals.Inbox,
        settings: Settings,
        queue: str,
        start: Callable[[int, bool], object],
        signs: PoolSigns,
        *,
        ends_by_itself: bool,
    ) -> None:
        self._inbox = inbox
        self._settings = settings
        self._queue = queue
        self._start = start
        self._ends_by_itself = ends_by_itself
        self._signs = signs
        self._places: list[Place] = []
        self._codes: list[int] = []
        self._end: Deadline | None = None
        self._killed = False
        self._directory = start_directory()
        self._new_code: NewCode | None = None

    def run(self, workers: int) -> int:
        """Run so many workers until all have ended.

        Returns:
            the exit code: that of the worst of those that were there when a stop was asked for, or have ended for good.
        """
        for signum in OWN:
            signal.signal(signum, self._inbox.record)
        gc.collect()
        gc.freeze()  # So that no collection in a worker writes to the pages that all share (gc.freeze's documentation).
        now, before = time.monotonic(), adopted()
        self._places = [Place.adopted(each, now) for each in before] or [Place(1 + index) for index in range(workers)]
        log.info(RENEWING if before else STARTED, os.getpid(), len(self._places))
        while self._places:
            self._see_who_ended()
            while (received := self._inbox.next()) is not None:
                self._act(received.name)
            self._reload()
            heard = [place for place in self._places if place.ear is not None]
            seconds = self._seconds() if self._end else self._fill()
            self._signs.come_by(self._places, self._end, renewing=self._renewing())
            for ready in self._inbox.wait(min(seconds, self._signs.seconds), [*heard, *self._signs.awaited]):
                if isinstance(ready, Place):
                    ready.listen()
            if self._end is not None and self._end.expired and not self._killed:
                self._kill_stragglers()
        if self._killed:
            self._close_reports()
        code = worst(self._codes)
        self._signs.ended(code)
        return code

    def _seconds(self) -> float:
        return LOOK_SECONDS if self._end is None or self._killed else min(LOOK_SECONDS, self._end.left())

    def _fill(self) -> float:
        """Start workers in empty places whose time has come; returns the seconds until the next one's."""
        now = time.monotonic()
        for place in self._places:
            if not place.pid and place.start_at <= now:
                self._fork(place)
        return min([LOOK_SECONDS, *(place.start_at - now for place in self._places if not place.pid)])

    def _fork(self, place: Place) -> None:
        parent, mouth = os.getpid(), place.open_mouth()
        with os_signals.blocked():
            place.pid, place.started_at = os.fork(), time.monotonic()
            if place.pid == 0:
                try:
                    for each in self._places:
                        each.close_ear()
                    speak(mouth)
                    for signum in OWN:
                        signal.signal(signum, signal.SIG_DFL)
                    parent_death.watch(parent, signal.SIGTERM)
                    self._start(place.number, place.quiet)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(os.EX_SOFTWARE)
        os.close(mouth)

    def _reload(self) -> None:
        """Execute anew once the new code is known to load; then replace old workers, one after the other."""
        if self._new_code is not None and self._end is not None:
            self._new_code.stop()
            self._new_code = None
        if self._end is not None:
            return
        if self._new_code is not None and self._new_code.known:
            problem, self._new_code = self._new_code.problem(), None
            if problem:
                log.error(KEPT, problem)
            else:
                self._execute()
        # One at a time, so that all but one take jobs.
        now = time.monotonic()
        if any(not each.pid or each.leaving or each.renewed or each.rising(now) for each in self._places):
            return
        old = next((place for place in self._places if place.old), None)
        if old is not None:
            old.old, old.renewed = False, True
            os.kill(old.pid, signal.SIGTERM)

    def _renewing(self) -> bool:
        """Whether new code is looked at, or workers with the old code are left."""
        return self._new_code is not None or any(place.old or place.renewed for place in self._places)

    def _execute(self) -> None:
        try:
            self._signs.hand_on()
            execute(self._directory, [place.handed_on() for place in self._places])
        except OSError as error:
            log.error(KEPT, error)
            self._signs.kept()

    def _see_who_ended(self) -> None:
        for place in [each for each in self._places if each.pid]:
            try:
                pid, status = os.waitpid(place.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = place.pid, 0
            if pid:
                place.ended()
                self._ended(place, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, place: Place, pid: int, code: int) -> None:
        if code < 0 and not self._killed:
            log.error(DIED, pid, signal_name(-code))
            self._close_reports()
        if place.renewed and self._end is None:
            place.renewed, place.start_at = False, time.monotonic()
            return
        if self._end is not None or place.leaving:
            self._codes.append(code)
            self._places.remove(place)
            return
        lived = time.monotonic() - place.started_at
        decision = after_end(code, lived, place.failures, ends_by_itself=self._ends_by_itself)
        if decision.next is Next.REPLACE:
            place.failures, place.start_at = decision.failures, time.monotonic() + decision.seconds
            log.info(REPLACED, pid, code, decision.seconds)
            return
        self._codes.append(code)
        self._places.remove(place)
        if decision.next is Next.GIVE_UP:
            log.error(GIVEN_UP, pid)
            self._stop("SIGTERM")

    def _act(self, name: str) -> None:
        if name in ("SIGTERM", "SIGINT"):
            self._stop(name)
        elif self._end is not None and name in (ADD.name, TAKE.name, RELOAD.name):
            pass  # Too late: nobody comes any more, and all are leaving.
        elif name == ADD.name:
            number, quiet = max(each.number for each in self._places) + 1, all(each.quiet for each in self._places)
            self._places.append(Place(number, quiet=quiet))
            log.info(RESIZED, self._staying())
        elif name == TAKE.name:
            self._take_one()
        elif name == RELOAD.name:
            if self._new_code is None:
                log.info(RELOADING)
                self._new_code = NewCode(self._directory)
                self._signs.reloading()
        elif name == STACKS_OF_ALL.name:
            log.warning(STACKS, "".join(traceback.format_stack(sys._getframe())))
            self._send(os_signals.STACKS_SIGNAL)
        else:
            if name == os_signals.QUIET_SIGNAL.name:
                for place in self._places:
                    place.quiet = True  # Who comes later, too; those that are there say so themselves.
            self._send(signal.Signals[name])

    def _stop(self, name: str) -> None:
        """Pass a stop on; within a second of the same signal to the whole group, it does not count twice there."""
        if self._end is None:
            self._end = Deadline.after(self._settings.timeout + MARGIN_SECONDS)
            self._places = [place for place in self._places if place.pid]
            log.info(STOPPING, os.getpid(), name, len(self._places), self._settings.timeout)
        self._send(signal.Signals[name])

    def _take_one(self) -> None:
        """Stop the worker that came last; one stays."""
        staying = [place for place in self._places if not place.leaving]
        if len(staying) < 2:
            return
        last = staying[-1]
        last.leaving = True
        log.info(RESIZED, self._staying())
        if last.pid:
            os.kill(last.pid, signal.SIGTERM)
        else:
            self._places.remove(last)

    def _staying(self) -> int:
        return sum(not place.leaving for place in self._places)

    def _send(self, signum: signal.Signals) -> None:
        for place in self._places:
            if place.pid:  # Not waited for yet, so that its id is its own.
                os.kill(place.pid, signum)

    def _kill_stragglers(self) -> None:
        self._killed = True
        log.error(STRAGGLERS, len(self._places))
        self._send(signal.SIGKILL)

    def _close_reports(self) -> None:
        """Close the reports of workers that were killed, at once: they have been waited for, and so are dead."""
        try:
            client = client_of_its_own(get_connection(self._queue), REAP_SECONDS)
            if client is not None:
                with contextlib.closing(client):
                    reap(client, self._settings, "the worker pool")
        except RedisError as error:
            log.warning(NOT_REAPED, error)
        finally:
            connections.close_all()  # The next worker that is forked must not inherit one.
