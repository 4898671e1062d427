"""``run_at_exit`` in real processes: scripts, signals, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

START = """
import logging, os, signal, sys, threading, time
from django.conf import settings
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")

def hook(shutdown):
    print("hook", os.getpid() == main, shutdown.reason, shutdown.signal, flush=True)

def hangs():
    time.sleep(60)

async def waits():
    import asyncio
    await asyncio.sleep(0)
    return "awaited"

main = os.getpid()
# nohup has it ignored, and what is ignored stays so in a child.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.configure(GRACEFUL_HOOKS_TIMEOUT=1, GRACEFUL_EXIT_HOOKS=[hook])
from graceful.hooks.at_exit import run_at_exit
from graceful.hooks import runner
"""


def start(directory: Path, script: str) -> subprocess.Popen[str]:
    """Start a script of our own."""
    path = directory / "script.py"
    path.write_text(START + script)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(directory: Path, script: str) -> tuple[int, list[str], str]:
    """Run a script: exit code, lines on its standard output, standard error."""
    with start(directory, script) as process:
        output, errors = process.communicate(timeout=30)
        return process.returncode, output.splitlines(), errors


def test_runs_once_at_the_end(tmp_path: Path) -> None:
    """Exit hooks run once at the end of a script."""
    code, lines, errors = run(tmp_path, "run_at_exit()\nrun_at_exit()\nprint('end')")
    assert lines[:2] == ["end", "hook True exit None"]
    assert lines[-1] == "Exit hooks at process exit: 1 run, all ok"
    assert len(lines) == 4
    assert (code, errors) == (0, "")


def test_async_hook_at_the_end(tmp_path: Path) -> None:
    """An async hook runs at the end of a script."""
    code, lines, errors = run(tmp_path, "settings.GRACEFUL_EXIT_HOOKS = [waits]\nrun_at_exit()")
    assert lines[0].startswith("Exit hook __main__.waits ok")
    assert lines[0].endswith("awaited")
    assert (code, errors) == (0, "")


@pytest.mark.parametrize(("ending", "expected"), [("sys.exit(3)", 3), ("raise ValueError('of the script')", 1)])
def test_exit_code_stays_the_scripts(ending: str, expected: int, tmp_path: Path) -> None:
    """The script's exit code is kept."""
    code, lines, _ = run(tmp_path, f"run_at_exit()\n{ending}")
    assert lines[0] == "hook True exit None"
    assert code == expected


def test_not_again_where_a_worker_ran_them(tmp_path: Path) -> None:
    """Hooks that a worker in the process has run do not run again."""
    code, lines, errors = run(tmp_path, "run_at_exit()\nassert runner.claim()\nprint('end')")
    assert (code, lines, errors) == (0, ["end"], "")


def test_forked_child_does_not_run_its_parents(tmp_path: Path) -> None:
    """A forked child does not run its parent's hooks."""
    script = """
run_at_exit()
child = os.fork()
if not child:
    sys.exit(0)
os.waitpid(child, 0)
print("end", flush=True)
"""
    code, lines, errors = run(tmp_path, script)
    assert lines[:2] == ["end", "hook True exit None"]
    assert (code, errors) == (0, "")


def test_forked_child_that_asks_for_itself(tmp_path: Path) -> None:
    """A forked child that calls ``run_at_exit`` runs hooks of its own."""
    script = """
run_at_exit()
child = os.fork()
if not child:
    run_at_exit()
    sys.exit(0)
os.waitpid(child, 0)
print("end", flush=True)
"""
    code, lines, errors = run(tmp_path, script)
    assert [line for line in lines if line.startswith(("hook", "end"))] == [
        "hook False exit None",
        "end",
        "hook True exit None",
    ]
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_signals(signum: signal.Signals, tmp_path: Path) -> None:
    """With ``signals=True`` SIGTERM and SIGHUP run ``finally`` blocks and hooks, and end with 128 + signal."""
    script = """
run_at_exit(signals=True)
try:
    print("ready", flush=True)
    threading.Event().wait()
finally:
    print("finally", flush=True)
"""
    with start(tmp_path, script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        output, errors = process.communicate(timeout=30)
    assert output.splitlines()[:2] == ["finally", f"hook True exit {signum.name}"]
    assert (process.returncode, errors) == (128 + signum, "")


def test_second_signal_does_not_cut_the_hooks_short(tmp_path: Path) -> None:
    """A second signal does not cut the hooks short."""
    script = """
def slow(shutdown):
    os.kill(os.getpid(), signal.SIGTERM)
    return "whole"
settings.GRACEFUL_EXIT_HOOKS = [slow]
run_at_exit(signals=True)
os.kill(os.getpid(), signal.SIGTERM)
"""
    code, lines, _ = run(tmp_path, script)
    assert lines[0].endswith("whole")
    assert code == 143


def test_handlers_of_others_are_left_alone(tmp_path: Path) -> None:
    """Existing signal handlers are left alone."""
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
run_at_exit(signals=True)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
run_at_exit()
"""
    code, lines, errors = run(tmp_path, script)
    assert lines[0] == "hook True exit None"
    assert (code, errors) == (0, "")


def test_hook_that_hangs(tmp_path: Path) -> None:
    """A hook that hangs times out, and the process ends."""
    code, lines, _ = run(tmp_path, "settings.GRACEFUL_EXIT_HOOKS = [hangs, hook]\nrun_at_exit()")
    assert "hook True exit None" in lines
    assert lines[-1] == "Exit hooks at process exit: 2 run, not ok: __main__.hangs"
    assert code == 0


def test_hook_that_cannot_be_interrupted(tmp_path: Path) -> None:
    """Without a standby thread the watchdog ends a process whose hook cannot be interrupted."""
    script = """
def blocks():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)
settings.GRACEFUL_EXIT_HOOKS = [blocks]
run_at_exit()
"""
    code, _, errors = run(tmp_path, script)
    assert code == 1
    assert "in blocks" in errors


def test_wrong_settings(tmp_path: Path) -> None:
    """Invalid settings are logged with their hint, and the process ends as usual."""
    code, lines, errors = run(tmp_path, "settings.GRACEFUL_TIMEOUT = -5\nrun_at_exit()")
    assert lines == [
        "Exit hooks not run, invalid settings: GRACEFUL_TIMEOUT must be a positive number of seconds, got: -5",
        "\tHINT: Give the seconds as a number, for instance 25 or 2.5.",
    ]
    assert (code, errors) == (0, "")
