"""``python -m demo_project demo`` and ``... demo_admin``: the management commands, with an embedded server around them.

What they leave is in .demo/: the database, the server's data and the log of the workers.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from demo_project.servers import redis_server

ROOT = Path(__file__).resolve().parent.parent
STATE_DIR = ROOT / ".demo"


def main(command: str) -> int:
    if command == "demo":
        for left in ("worker.log", "db.sqlite3"):
            (STATE_DIR / left).unlink(missing_ok=True)
        shutil.rmtree(STATE_DIR / "valkey", ignore_errors=True)
    elif not STATE_DIR.exists():
        print("There is nothing to show yet: run `make demo` first.")
        return 1
    STATE_DIR.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with redis_server(STATE_DIR):
        process = subprocess.Popen([sys.executable, "manage.py", command], cwd=ROOT)
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal has told the command as well, and it ends what it has started; kill(1) has told only us.
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                process.terminate()
                return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
