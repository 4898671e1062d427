"""Starts workers quickly: a process that has everything imported forks them, and reports when each of them ends.

Run as ``python -m tests.chaos.forkserver``; it reads orders as JSON lines on stdin and writes events as JSON lines to
stdout. The workers are real ones: a session each, their own command line, environment and settings. Tests use the
simpler ``tests/support/forkserver.py``: a call at a time, no events.
"""

from __future__ import annotations

import ctypes
import datetime as datetime_module
import faulthandler
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from typing import Any

import django

CLOCK_VARIABLE = "CHAOS_CLOCK"
CAP_DAC_OVERRIDE, CAPABILITY_VERSION_3 = 1, 0x20080522
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
"""Of linux/capability.h and linux/prctl.h."""


def main() -> None:
    """Serve until stdin is closed; then kill whatever was started here and still runs."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    _warm_up()
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say({"ready": os.getpid()})
    children: set[int] = set()
    buffer = b""
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            children -= _reap()
        if 0 in ready:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                children.add(_start(json.loads(line)))
    for pid in children:
        os.killpg(pid, signal.SIGKILL)


def _warm_up() -> None:
    import sqlite3  # noqa: F401

    from django.core.management import call_command, load_command_class
    from django_rq import get_queue  # noqa: F401

    import tests.chaos.actors
    import tests.chaos.jobs

    tests.chaos.actors.warm_up()
    for command in ("rqworker", "rqcron", "runworker_graceful"):
        app = "graceful" if command == "runworker_graceful" else "django_rq"
        load_command_class(app, command)
    if os.environ.get("CHAOS_MIGRATE"):
        pid = os.fork()
        if pid == 0:
            call_command("migrate", "graceful", verbosity=0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "migrate failed"


def _reap() -> set[int]:
    """Tell of those that ended, with the instant (monotonic, one clock for the machine) and the exit code."""
    gone = set()
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if not pid:
            break
        gone.add(pid)
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status), "at": time.monotonic()})
    return gone


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        _say({"started": pid})
        return pid
    code = 70
    try:
        code = _be_a_worker(order)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _be_a_worker(order: dict[str, Any]) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 64)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    if "uid" in order:
        become(order["uid"])
    os.environ.update(order["environment"])
    _set(order["settings"], order["queue"])
    if CLOCK_VARIABLE in os.environ:
        bend_the_clock(os.environ[CLOCK_VARIABLE])
    if "actor" in order:
        from tests.chaos.actors import ACTORS

        ACTORS[order["actor"]]()
        return 0
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *order["arguments"]])
    return 0


def _set(values: dict[str, Any], connection: dict[str, Any]) -> None:
    """Do what ``tests.settings`` would have done, had this process been started from nothing."""
    from django.conf import settings

    from graceful import conf

    os.environ["TEST_GRACEFUL_SETTINGS"] = json.dumps(values)
    for name, value in values.items():
        setattr(settings, name, value)
    for queue in settings.RQ_QUEUES.values():
        queue.pop("URL", None)
        queue.update(connection)
    conf.clear()


def become(uid: int) -> None:
    """Become another user, who may read and write every file, and is shown no process but their own by ``hidepid``.

    capabilities(7) and prctl(2): of root's capabilities only the one for files is kept, also by what is executed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = 1 << CAP_DAC_OVERRIDE

    def call(number: int, *arguments: int) -> None:
        if libc.prctl(number, *arguments):
            raise OSError(ctypes.get_errno(), f"prctl {number}")

    call(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if libc.capset(header, struct.pack("=6I", kept, kept, kept, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")
    call(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def bend_the_clock(path: str) -> None:
    """Make this process's wall clock follow a file of seconds that is added to it; the monotonic clock stays."""
    descriptor = os.open(path, os.O_RDWR)
    page = mmap.mmap(descriptor, 8)
    os.close(descriptor)
    true_time, true_datetime = time.time, datetime_module.datetime

    def offset() -> float:
        return float(struct.unpack_from("=d", page, 0)[0])

    class AsEver(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

    class Bent(true_datetime, metaclass=AsEver):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return true_datetime.now(tz) + datetime_module.timedelta(seconds=offset())

        @classmethod
        def utcnow(cls) -> Any:
            return true_datetime.now(datetime_module.UTC).replace(tzinfo=None) + datetime_module.timedelta(
                seconds=offset()
            )

    time.time = lambda: true_time() + offset()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("rq", "django_rq", "graceful", "redis") and name != "django.utils.timezone":
            continue
        for attribute, value in list(vars(module).items()):
            if value is true_datetime:
                setattr(module, attribute, Bent)
            elif value is true_time:
                setattr(module, attribute, time.time)


def _say(news: dict[str, Any]) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    main()
