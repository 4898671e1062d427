"""docs/tutorial.md: every block of it, from the first to the last, in an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.server import Server

BLOCK = re.compile(r'^```(console|python title="([^"]+)")\n(.*?)^```$', re.MULTILINE | re.DOTALL)
AT_WORK = 'until grep -q "send_newsletter" "$log"; do sleep 0.1; done; sleep 2.5'
GONE = 'while kill -0 "$(cat worker.pid)" 2>/dev/null; do sleep 0.1; done'


def script_of(text: str) -> str:
    """The page as a script: files are appended to, commands are run; pauses become waiting for what they are for."""
    lines = ["set -eu"]
    for kind, path, body in BLOCK.findall(text):
        if kind != "console":
            lines += [f"cat >> {path} <<'END_OF_FILE'", body + "END_OF_FILE"]
            continue
        for command in (line.removeprefix("$ ") for line in body.splitlines()):
            if started := re.search(r"> (\S+\.log)", command):
                lines += [f"log={started[1]}"]
            lines += [{"sleep 4": AT_WORK, "sleep 3": GONE}.get(command, command)]
    return "\n".join(lines) + "\n"


def test_the_tutorial(own_valkey: Server, tmp_path: Path) -> None:
    """The first worker is interrupted, the second goes on where it stopped, and the reports say so."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "TEST_", "DATABASE_"))
    }
    environ |= {
        "REDIS_URL": own_valkey.url,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    script = script_of((ROOT / "docs" / "tutorial.md").read_text())
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    logs = "".join(each.read_text() for each in sorted(tmp_path.glob("*.log")))
    assert run.returncode == 0, f"{run.stdout}{run.stderr}{logs}"
    assert "outcome   INTERRUPTED, exit code 75" in run.stdout, run.stdout
    assert "0 jobs counted" in run.stdout
    assert "release   first" in run.stdout
    assert "[True]" in run.stdout, f"{run.stdout}{logs}"
