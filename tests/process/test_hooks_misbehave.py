"""Exit hooks that misbehave, each in a real process: the next hook runs, and the result says what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import asyncio, ctypes, json, os, signal, socket, subprocess, sys, threading, time
from django.conf import settings
settings.configure()
from graceful.core.deadline import Deadline
from graceful.core.phases import Reason
from graceful.core.records import HookSpec, JobTally, Shutdown
from graceful.hooks import watchdog
from graceful.hooks.runner import run_hooks
from graceful.signals import hook_finished

{hooks}

def after():
    return f"ran in {{os.getpid()}}"

def save(results, way):
    handler = signal.getsignal(signal.SIGALRM)
    found = {{
        "way": way,
        "pid": os.getpid(),
        "seconds": time.monotonic() - began,
        "hooks": [[r.name, r.outcome, r.detail, r.error, r.traceback, r.seconds, r.timeout] for r in results],
        "ended": ended,
        "handler": "default" if handler is signal.SIG_DFL else repr(handler),
        "timer": signal.getitimer(signal.ITIMER_REAL),
    }}
    with open(sys.argv[1] + ".new", "w") as file:
        json.dump(found, file)
    os.rename(sys.argv[1] + ".new", sys.argv[1])

def take_over(results):
    save(results, "taken over")
    os._exit(70)

ended = []
hooks = [HookSpec(globals()[name], name, timeout) for name, timeout in {specs!r}]
began = time.monotonic()
results = run_hooks(
    hooks,
    shutdown=lambda limit: Shutdown(Reason.SIGNAL, "SIGTERM", "w", ("default",), JobTally(), limit),
    deadline=Deadline.after({seconds}),
    on_start=lambda spec, seconds: None,
    on_end=lambda result: ended.append(result.name),
    take_over={take_over},
)
save(results, "returned")
os._exit(0)
"""


@dataclass(frozen=True)
class Ending:
    """What the script said of its hooks."""

    way: str
    seconds: float
    hooks: dict[str, dict[str, Any]]
    ended: list[str]
    handler: str
    timer: list[float]
    exit_code: int
    errors: str


def run_script(
    directory: Path, hooks: str, *specs: tuple[str, float | None], seconds: float = 5.0, take_over: str = "take_over"
) -> Ending:
    """Run hooks in a process of their own; each of ``specs`` is a function's name and its timeout."""
    script, answer = directory / "script.py", directory / "answer.json"
    script.write_text(SCRIPT.format(hooks=hooks, specs=list(specs), seconds=seconds, take_over=take_over))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(script), str(answer)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.exists(), done.stderr
    found = json.loads(answer.read_text())
    keys = ("outcome", "detail", "error", "traceback", "seconds", "timeout")
    rows = {name: dict(zip(keys, row, strict=True)) for name, *row in found["hooks"]}
    ran_in = rows["after"]["detail"]
    assert ran_in == f"ran in {found['pid']}", "the last hook ran in another process, or did not run"
    return Ending(
        way=found["way"],
        seconds=found["seconds"],
        hooks=rows,
        ended=found["ended"],
        handler=found["handler"],
        timer=found["timer"],
        exit_code=done.returncode,
        errors=done.stderr,
    )


HANGS = {
    "a Python loop": "def bad():\n    while True: pass",
    "time.sleep": "def bad():\n    time.sleep(60)",
    "a lock": "def bad():\n    lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "recv of a socket": "def bad():\n    ours, theirs = socket.socketpair(); ours.recv(1)",
    "a subprocess": """
def bad():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.wait()
""",
    "an event": "def bad():\n    threading.Event().wait()",
    "except Exception around it": (
        "def bad():\n    while True:\n        try: time.sleep(60)\n        except Exception: pass"
    ),
    "an async wait": "async def bad():\n    await asyncio.sleep(60)",
    "async, and swallows being cancelled": """
async def bad():
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass
""",
    "an async loop": "async def bad():\n    while True: pass",
}


@pytest.mark.parametrize("where", HANGS)
def test_hook_that_hangs_times_out_where_it_hung(where: str, tmp_path: Path) -> None:
    """A hook that hangs times out, with the stack where it hung."""
    ending = run_script(tmp_path, HANGS[where], ("bad", 0.3), ("after", None))
    bad = ending.hooks["bad"]
    assert bad["outcome"] == "timed_out"
    assert bad["timeout"] == pytest.approx(0.3)
    assert "took longer than 0.3 s" in bad["error"]
    assert "in bad" in bad["traceback"]
    assert bad["seconds"] < 2
    assert ending.way == "returned", "the alarm is enough for this one"
    assert ending.hooks["after"]["outcome"] == "ok"
    assert ending.ended == ["bad", "after"]
    assert (ending.handler, ending.timer) == ("default", [0.0, 0.0])


def test_hook_that_swallows_the_timeout_gets_it_again(tmp_path: Path) -> None:
    """A hook that swallows the timeout gets it again."""
    hooks = """
def bad():
    for _ in range(3):
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
    ending = run_script(tmp_path, hooks, ("bad", 0.2), ("after", None))
    assert ending.way == "returned"
    assert ending.hooks["bad"]["outcome"] == "timed_out"
    assert "line" in ending.hooks["bad"]["traceback"]


def test_two_hooks_that_hang_share_the_time(tmp_path: Path) -> None:
    """Two hooks that hang get equal shares of the time."""
    hooks = "def bad():\n    time.sleep(60)\ndef worse():\n    time.sleep(60)"
    ending = run_script(tmp_path, hooks, ("bad", None), ("worse", None), ("after", None), seconds=1.5)
    assert [row["outcome"] for row in ending.hooks.values()] == ["timed_out", "timed_out", "ok"]
    assert ending.seconds < 1.5


UNREACHABLE = {
    "swallows everything for ever": """
def bad():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
    "blocks SIGALRM and sleeps": """
def bad():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)
""",
    "ignores SIGALRM and sleeps": """
def bad():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)
""",
    "cancels the timer and sleeps": """
def bad():
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(60)
""",
    "sleeps in C, without the GIL": """
def bad():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.CDLL(None).sleep(60)
""",
}


@pytest.mark.parametrize("how", UNREACHABLE)
def test_standby_takes_over_from_a_hook_that_cannot_be_interrupted(how: str, tmp_path: Path) -> None:
    """The standby thread runs the remaining hooks and ends the process."""
    ending = run_script(tmp_path, UNREACHABLE[how], ("bad", 0.2), ("after", None), seconds=3.0)
    assert ending.way == "taken over"
    assert ending.exit_code == 70
    bad = ending.hooks["bad"]
    assert bad["outcome"] == "timed_out"
    assert "could not be interrupted" in bad["error"]
    assert "in bad" in bad["traceback"]
    assert ending.hooks["after"]["outcome"] == "ok"
    assert ending.ended == ["bad", "after"]
    assert ending.seconds < 3.0


def test_standby_of_the_standby(tmp_path: Path) -> None:
    """A second hook that cannot be interrupted is abandoned too, by the next standby thread."""
    hooks = """
def bad():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)
def worse():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
    ending = run_script(tmp_path, hooks, ("bad", 0.2), ("worse", 0.2), ("after", None), seconds=4.0)
    assert ending.way == "taken over"
    assert [row["outcome"] for row in ending.hooks.values()] == ["timed_out", "timed_out", "ok"]
    assert "in worse" in ending.hooks["worse"]["traceback"]
    assert ending.seconds < 4.0


def test_last_hook_that_cannot_be_interrupted_ends_within_the_deadline(tmp_path: Path) -> None:
    """The takeover happens within the deadline of the hooks."""
    hooks = "def bad():\n    signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(60)"
    ending = run_script(tmp_path, hooks, ("after", None), ("bad", None), seconds=1.5)
    assert ending.way == "taken over"
    assert ending.hooks["bad"]["outcome"] == "timed_out"
    assert ending.seconds < 1.7


def test_receiver_of_hook_finished_that_hangs_is_left_behind(tmp_path: Path) -> None:
    """A receiver of ``hook_finished`` that hangs does not keep the remaining hooks from running."""
    hooks = """
def bad():
    return "fine"
def hang(result, **kwargs):
    if result.name == "bad":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)
hook_finished.connect(hang)
"""
    ending = run_script(tmp_path, hooks, ("bad", None), ("after", None), seconds=2.0)
    assert ending.way == "taken over"
    assert [row["outcome"] for row in ending.hooks.values()] == ["ok", "ok"]
    assert ending.seconds < 2.0


RAISES = {
    "ValueError: broken": "def bad():\n    raise ValueError('broken')",
    "SystemExit: 3": "def bad():\n    sys.exit(3)",
    "KeyboardInterrupt": "def bad():\n    raise KeyboardInterrupt",
    "GeneratorExit": "async def bad():\n    raise GeneratorExit",
    "RecursionError": "def bad():\n    bad()",
}


@pytest.mark.parametrize("error", RAISES)
def test_hook_that_raises_harms_nobody(error: str, tmp_path: Path) -> None:
    """An error or SystemExit in one hook does not affect the others."""
    ending = run_script(tmp_path, RAISES[error], ("bad", None), ("after", None))
    bad = ending.hooks["bad"]
    assert bad["outcome"] == "failed"
    assert bad["error"].startswith(error)
    assert "in bad" in bad["traceback"]
    assert "hooks/attempt.py" not in bad["traceback"]
    assert (ending.way, ending.exit_code) == ("returned", 0)
    assert "Exit hook bad failed" in ending.errors


HARMLESS = {
    "closes the standard streams": "def bad():\n    sys.stdout.close(); sys.stderr.close()",
    "closes the descriptors of the standard streams": "def bad():\n    os.close(1); os.close(2)",
    "forks, and the child returns": """
def bad():
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70
""",
    "forks, and the child raises": """
def bad():
    child = os.fork()
    if not child:
        raise SystemExit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70
""",
    "starts threads that are no daemons": """
def bad():
    for _ in range(3):
        threading.Thread(target=threading.Event().wait).start()
""",
    "changes the handler of SIGALRM": "def bad():\n    signal.signal(signal.SIGALRM, signal.SIG_IGN)",
    "blocks SIGALRM": "def bad():\n    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})",
    "sets an alarm of its own": """
def bad():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
""",
    "breaks the signal hook_finished": """
def bad():
    def receiver(**kwargs):
        raise SystemExit(5)
    hook_finished.connect(receiver, weak=False)
""",
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_a_hook_leaves_behind_does_not_harm_the_next(what: str, tmp_path: Path) -> None:
    """Closed streams, a forked child or a changed SIGALRM do not affect the next hook."""
    hooks = HARMLESS[what] + "\ndef hangs():\n    time.sleep(60)"
    ending = run_script(tmp_path, hooks, ("bad", None), ("hangs", 0.4), ("after", None))
    assert [row["outcome"] for row in ending.hooks.values()] == ["ok", "timed_out", "ok"]
    assert (ending.way, ending.exit_code) == ("returned", 0)
    assert ending.ended == ["bad", "hangs", "after"]
    assert (ending.handler, ending.timer) == ("default", [0.0, 0.0])


def test_alarm_at_the_very_end_of_a_hook(tmp_path: Path) -> None:
    """An alarm just as a hook returns neither leaves the runner nor ends the next hook."""
    hooks = """
from graceful.hooks import alarm
alarm.REPEAT_SECONDS = 0.0001
def races(offset):
    def hook():
        end = time.monotonic() + 0.002 + offset
        while time.monotonic() < end:
            pass
    return hook
for number in range(400):
    globals()[f"race{number}"] = races((number % 20 - 10) / 50_000)
import logging
logging.disable()
"""
    races = [(f"race{number}", 0.002) for number in range(400)]
    ending = run_script(tmp_path, hooks, *races, ("after", None), seconds=30.0)
    assert ending.way == "returned"
    assert ending.ended == [*(name for name, _ in races), "after"]
    assert {row["outcome"] for row in ending.hooks.values()} == {"ok", "timed_out"}


@pytest.mark.parametrize(
    "hold", ["ctypes.PyDLL(None).sleep(60)", "[ctypes.PyDLL(None).usleep(900000) for _ in range(60)]"]
)
def test_watchdog_ends_a_process_whose_gil_is_held(hold: str, tmp_path: Path) -> None:
    """The watchdog ends a process in which C code holds the GIL."""
    script = tmp_path / "script.py"
    script.write_text(
        "import ctypes, sys\n"
        "from graceful.core.deadline import Deadline\n"
        "from graceful.hooks import watchdog\n"
        "watchdog.arm(Deadline.after(1.0))\n"
        "sys.stderr.close()\n"
        "print('armed', flush=True)\n"
        f"def holds():\n    {hold}\n"
        "holds()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "armed\n"
        began = time.monotonic()
        stacks = process.stderr.read()
        assert process.wait(timeout=30) == 1
        assert time.monotonic() - began < 2.5
    assert "in holds" in stacks


def test_watchdog_that_is_disarmed_does_nothing(tmp_path: Path) -> None:
    """A disarmed watchdog does nothing."""
    script = tmp_path / "script.py"
    script.write_text(
        "import ctypes\n"
        "from graceful.core.deadline import Deadline\n"
        "from graceful.hooks import watchdog\n"
        "watchdog.arm(Deadline.after(0.2))\n"
        "watchdog.disarm()\n"
        "watchdog.disarm()\n"
        "ctypes.CDLL(None).usleep(600000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
