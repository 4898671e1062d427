"""One round: jobs, a worker, one fault at a random instant, a new worker, and the books."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.services import Postgres
from tests.compare.books import Books, Line, balance, read
from tests.compare.peers import BUDGET_SECONDS, GRACE_SECONDS, INSIDE, Peer
from tests.support.processes import ROOT, pids_in_session
from tests.support.server import Server
from tests.support.waiting import let_pass, wait_until

DJANGO = ("app_rq", "app_tasks_db")
FAULTS = ("deploy", "kill", "endless", "cut")
SETTLED_SECONDS = 6.0
"""A worker that has done nothing for so long, with no job held, will do nothing more."""
LONG_SECONDS = 10.0


class Broken(Exception):
    """A peer does not do what it is there for, for a reason of its own or of ours; what its processes have printed."""


@dataclass
class Outcome:
    """What came of a round; seconds."""

    peer: str
    fault: str
    jobs: int
    books: Books
    stop: float | None = None
    killed: bool = False


class Rig:
    """A broker, a ledger, and processes of one peer.

    Args:
        peer: the peer.
        programs: where its programs are.
    """

    def __init__(self, peer: Peer, programs: Path) -> None:
        self.peer = peer
        self.programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="graceful-compare-"))
        self.directory.chmod(0o755)
        self.ledger = self.directory / "ledger"
        self.ledger.touch()
        self.server: Server | None = None
        self.postgres: Postgres | None = None
        self._workers = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._producer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Rig:
        if self.peer.broker == "postgres":
            self.postgres = Postgres(self.directory / "postgres")
            self.postgres.create()
        else:
            self.server = Server()
            self.server.start()
        if self.peer.prepare:
            subprocess.run(self._command(self.peer.prepare), cwd=INSIDE, env=self._environment("-"), check=True)
        if self.peer.app == "app_rq":
            migrate = self._command(("{bin}/python", "-m", "django", "migrate", "--verbosity", "0"))
            subprocess.run(migrate, cwd=INSIDE, env=self._environment("-"), check=True)
        with (self.directory / "producer.log").open("wb") as log:
            self._producer = subprocess.Popen(
                self.peer.producer(self.programs),
                cwd=INSIDE,
                env=self._environment("-"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            _kill_session(process.pid)
            process.wait()
        if self._producer is not None:
            self._producer.kill()
            self._producer.wait()
        if self.server is not None:
            self.server.close()
        if self.postgres is not None:
            self.postgres.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def enqueue(self, *jobs: tuple[str, float, bool]) -> None:
        self._ask("enqueue", jobs)

    def states(self, jobs: list[str]) -> dict[str, str]:
        """What the system says of them."""
        found: dict[str, str] = self._ask("states", jobs)
        return found

    def start_worker(self) -> subprocess.Popen[bytes]:
        self._workers += 1
        with (self.directory / f"worker-{self._workers}.log").open("wb") as log:
            process = subprocess.Popen(
                self._command(self.peer.worker),
                cwd=INSIDE,
                env=self._environment(str(self._workers)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def lines(self) -> list[Line]:
        return read(self.ledger.read_text())

    def ended(self) -> set[str]:
        return {line.job for line in self.lines() if line.what == "end"}

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.directory.glob("*.log"))
        )

    def cut(self, seconds: float) -> None:
        """The broker is restarted with all that it held, and is away for so long."""
        if self.postgres is not None:
            self.postgres.stop("fast")
            let_pass(seconds, "it is away for so long")
            self.postgres.start()
        elif self.server is not None:
            with self.server.client(socket_timeout=5, retry=None) as client:
                client.shutdown(save=True)
            assert self.server.process is not None
            self.server.process.wait(10)
            let_pass(seconds, "it is away for so long")
            self.server.start()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [word.replace("{bin}", str(self.programs)) for word in words]

    def _environment(self, worker: str) -> dict[str, str]:
        broker = str(self.postgres.directory) if self.postgres else self.server.url if self.server else ""
        paths = [str(INSIDE), *([str(ROOT)] if not self.peer.packages else [])]
        return {
            "PATH": os.pathsep.join([str(self.programs), os.environ["PATH"]]),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"DJANGO_SETTINGS_MODULE": "settings_django"} if self.peer.app in DJANGO else {}),
            **dict(self.peer.environment),
            "COMPARE_LEDGER": str(self.ledger),
            "COMPARE_WORKER": "" if worker == "-" else worker,
            "COMPARE_APP": self.peer.name,
            "COMPARE_BROKER": broker,
            "COMPARE_RUN": str(self.directory),
            "COMPARE_BUDGET": str(BUDGET_SECONDS),
        }

    def _ask(self, what: str, argument: Any) -> Any:
        assert self._producer is not None
        assert self._producer.stdin is not None
        self._producer.stdin.write(json.dumps([what, argument]) + "\n")
        self._producer.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._producer is not None
        assert self._producer.stdout is not None
        line = self._producer.stdout.readline()
        if not line:
            raise Broken(self.logs())
        return json.loads(line)


def play(peer: Peer, programs: Path, fault: str, rng: random.Random) -> Outcome:
    """Play one round.

    Raises:
        NeverHappened: the peer's worker did not begin with a job.
    """
    with Rig(peer, programs) as rig:
        jobs = _jobs(fault, rng)
        rig.enqueue(*jobs)
        names = [name for name, _, _ in jobs]
        worker = rig.start_worker()
        wait_until(lambda: _begun(rig, jobs, fault), 60, rig.logs)
        let_pass(rng.uniform(0.0, 1.5), "the instant of the fault is drawn")
        stopped_at = time.clock_gettime(time.CLOCK_MONOTONIC)
        outcome = Outcome(peer.name, fault, len(jobs), Books())
        if fault == "kill":
            _kill_session(worker.pid)
            worker.wait()
        elif fault == "cut":
            rig.cut(1.0)
        else:
            worker.send_signal(peer.stop)
            try:
                worker.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                outcome.killed = True
            _kill_session(worker.pid)
            worker.wait()
            outcome.stop = time.clock_gettime(time.CLOCK_MONOTONIC) - stopped_at
        if fault != "cut":
            worker = rig.start_worker()
        _work_on(rig, worker, names)
        missing = [name for name in names if name not in rig.ended()]
        outcome.books = balance(names, rig.lines(), rig.states(missing) if missing else {}, stopped_at)
        return outcome


def stop_idle(peer: Peer, programs: Path) -> float:
    """Seconds from the signal to the end of a worker that has nothing to do; the grace period if it is still there."""
    with Rig(peer, programs) as rig:
        rig.enqueue(("first", 0.0, False))
        worker = rig.start_worker()
        wait_until(lambda: "first" in rig.ended(), 60, rig.logs)
        let_pass(1.0, "each peer has its own way to be idle, and none that can be seen")
        began = time.monotonic()
        worker.send_signal(peer.stop)
        try:
            worker.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return GRACE_SECONDS
        return time.monotonic() - began


def _jobs(fault: str, rng: random.Random) -> list[tuple[str, float, bool]]:
    """Short ones; in some rounds one that outlasts the grace period; an endless one where that is the fault."""
    short = [(f"job{number}", round(rng.uniform(0.1, 1.0), 2), False) for number in range(5)]
    if fault == "endless":
        return [("endless", 0.1, True), *short]
    if fault == "cut":
        return [("job-long", 3.0, False), *short]
    if rng.random() < 0.5:
        short.insert(rng.randrange(3), ("job-long", LONG_SECONDS, False))
    return short


def _begun(rig: Rig, jobs: list[tuple[str, float, bool]], fault: str) -> bool:
    wanted = {"endless": "endless", "cut": "job-long"}.get(fault)
    return any(line.what == "start" and wanted in (None, line.job) for line in rig.lines())


def _work_on(rig: Rig, worker: subprocess.Popen[bytes], names: list[str]) -> None:
    """Until all have ended, or nothing more will come; a worker that ends is started anew, as a platform does."""
    until = time.monotonic() + rig.peer.patience
    changed_at, before = time.monotonic(), -1
    while time.monotonic() < until:
        lines = rig.lines()
        if all(name in rig.ended() for name in names):
            return
        if len(lines) != before:
            changed_at, before = time.monotonic(), len(lines)
        if worker.poll() is not None:
            let_pass(1.0, "a platform does not start it anew at once")
            worker, changed_at = rig.start_worker(), time.monotonic()
        running = {line.job for line in lines if line.what == "start"} - rig.ended()
        if time.monotonic() - changed_at > SETTLED_SECONDS + (LONG_SECONDS if "job-long" in running else 0.0):
            missing = [name for name in names if name not in rig.ended()]
            if not {"held", "queued"} & set(rig.states(missing).values()):
                return
        let_pass(0.1, "the ledger is read again")


def _kill_session(pid: int) -> None:
    for each in pids_in_session(pid):
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            pass
