"""One lane of rounds: a server, a database and a forkserver of workers of its own, used for one round after another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from graceful.core import report_json
from graceful.exceptions import UnreadableReport
from tests.chaos.forkserver import CLOCK_VARIABLE
from tests.chaos.ledger import VARIABLE, Ledger
from tests.chaos.plan import ACTORS, QUEUES
from tests.chaos.proxy import Proxy
from tests.support.processes import ROOT, pids_in_session
from tests.support.server import Server
from tests.support.waiting import wait_until

INTERRUPTED = ("interrupted", "interruption_failed", "killed")
"""What a report says of a job that the shutdown ended, see ``graceful.core.phases.JobOutcome``."""
CLASSES = {"spawn": "Spawn", "simple": "Simple"}


class Worker:
    """A worker process of the forkserver, in a session of its own."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        self.output_path = output
        self.pid = 0
        self.code: int | None = None
        self.ended_at = 0.0
        """Instant of ``time.monotonic()``."""
        self.ended = threading.Event()
        self.killed = False
        """Whether SIGKILL was sent to it."""

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def pour(self, pipe: Path) -> None:
        """Copy what it prints, through a named pipe because no file gets longer for it, into its file."""
        with pipe.open("rb") as source, self.output_path.open("wb", buffering=0) as file:
            while chunk := source.read1(1 << 16):
                file.write(chunk)
        pipe.unlink()

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to it alone; it may have ended."""
        self.killed |= signum == signal.SIGKILL
        _send(self.pid, signum)

    def signal_group(self, signum: signal.Signals) -> None:
        if not self.ended.is_set():
            try:
                os.killpg(self.pid, signum)
            except ProcessLookupError:
                pass

    def signal_session(self, signum: signal.Signals) -> None:
        self.killed |= signum == signal.SIGKILL
        for pid in pids_in_session(self.pid):
            _send(pid, signum)

    def children(self) -> list[int]:
        return [pid for pid in pids_in_session(self.pid) if pid != self.pid]

    def __repr__(self) -> str:
        return f"worker {self.name}, pid {self.pid}, exit code {self.code}"


@dataclass(frozen=True)
class StoredReport:
    """What the books need of a shutdown report.

    Args:
        pid: of its worker.
        place: where it is: database, journal or spool.
        outcome: the report's.
        exit_code: the report's; None if not seen.
    """

    pid: int
    place: str
    outcome: str
    exit_code: int | None


TIME_PASSES_SCRIPT = """
-- ARGV: seconds. Whatever expires does so earlier by them, and what is scored by a time is older by them.
local seconds = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key)['ok']
  local left = redis.call('PTTL', key)
  if kind == 'zset' then
    local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      local score = tonumber(entries[i + 1])
      if score > 1e9 and score < 1e11 then
        redis.call('ZADD', key, string.format('%.6f', score - seconds), entries[i])
      end
    end
  elseif kind == 'string' and string.find(key, ':first_seen:', 1, true) then
    redis.call('SET', key, string.format('%.6f', tonumber(redis.call('GET', key)) - seconds), 'KEEPTTL')
  end
  if string.find(key, 'rq:clean_', 1, true) == 1 or (left >= 0 and left <= seconds * 1000) then
    redis.call('DEL', key)
  elseif left >= 0 then
    redis.call('PEXPIRE', key, math.floor(left - seconds * 1000))
  end
end
"""


class Lane:
    """See the module; those with other services than Valkey and SQLite are in :mod:`tests.chaos.services`."""

    service = "plain"
    actors = ACTORS

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="graceful-chaos-"))
        self.server = self.make_server()
        self.database = self.directory / "chaos.sqlite3"
        self.clock = self.directory / "clock"
        self.clock.write_bytes(struct.pack("=d", 0.0))
        self.ledger = Ledger(self.directory / "ledger")
        self.spool = self.directory / "spool"
        self._nursery: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._started: list[int] = []
        self._news = threading.Condition()
        self._workers: dict[int, Worker] = {}
        self._early: dict[int, dict[str, Any]] = {}
        self._reader: threading.Thread | None = None
        self._count = 0

    def nursery_command(self) -> list[str]:
        return [sys.executable, "-m", "tests.chaos.forkserver"]

    def order(self) -> dict[str, Any]:
        """What is in the order of every worker on this lane."""
        return {}

    def make_server(self) -> Server:
        return Server()

    def start_services(self) -> None:
        """Start what the workers are connected to, and a connection and a proxy of the driver's own."""
        self.server.start()
        self.connection = self.server.client(socket_timeout=10)
        self.proxy = Proxy(self.server.port)

    def stop_services(self) -> None:
        if hasattr(self, "proxy"):
            self.proxy.close()
        self.server.close()

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database}"

    @property
    def settings(self) -> dict[str, Any]:
        """Django settings of every worker on this lane."""
        return {"GRACEFUL_SPOOL_DIR": str(self.spool)}

    def queue(self, *, proxied: bool = False) -> dict[str, Any]:
        """How a worker gets to its queues: an entry of ``RQ_QUEUES``."""
        url = self.server.url
        return {"URL": url.replace(f":{self.server.port}/", f":{self.proxy.port}/") if proxied else url}

    def __enter__(self) -> Lane:
        try:
            self.start_services()
            environ = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "DATABASE_URL": self.database_url,
                "TEST_GRACEFUL_SETTINGS": json.dumps(self.settings),
                "TEST_RUN_DIR": str(self.directory),
                "CHAOS_MIGRATE": "1",
                VARIABLE: str(self.ledger.path),
            }
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            self._nursery = subprocess.Popen(
                self.nursery_command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
                cwd=ROOT,
                start_new_session=True,
            )
            self._reader = threading.Thread(target=self._read_news, daemon=True)
            self._reader.start()
            with self._news:
                assert self._news.wait_for(lambda: bool(self._started), 60), "the forkserver did not start"
                self._started.clear()
            return self
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.signal_session(signal.SIGKILL)
        if self._nursery is not None:
            assert self._nursery.stdin is not None
            assert self._nursery.stdout is not None
            self._nursery.stdin.close()
            self._nursery.wait(10)
            if self._reader is not None:
                self._reader.join(5)
            self._nursery.stdout.close()
        self.stop_services()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _read_news(self) -> None:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            news = json.loads(line)
            with self._news:
                if "ready" in news or "started" in news:
                    self._started.append(news.get("started", 0))
                elif news["ended"] in self._workers:
                    _end(self._workers[news["ended"]], news)
                else:
                    self._early[news["ended"]] = news
                self._news.notify_all()

    def start_worker(
        self,
        queues: Sequence[str],
        mode: str,
        *,
        stock: bool = False,
        proxied: bool = False,
        name: str = "",
        settings: Mapping[str, Any] | None = None,
        with_scheduler: bool = False,
        bent_clock: bool = False,
        piped: bool = False,
    ) -> Worker:
        """Fork a worker.

        Args:
            queues: names of its queues.
            mode: one of :data:`tests.chaos.plan.MODES`.
            stock: django-rq's own.
            proxied: whether it is connected through the proxy.
            name: its name; a new one if empty.
            settings: Django settings.
            with_scheduler: whether RQ's scheduler runs in it, also where the mode does not say so.
            bent_clock: whether its wall clock follows the lane's.
            piped: whether its output goes through a pipe.
        """
        worker = Worker(name or f"chaos-{uuid.uuid4().hex[:8]}", self._new_log())
        arguments = ["rqworker" if stock else "runworker_graceful", *queues, "--name", worker.name]
        if mode in CLASSES:
            prefix = "rq.worker." if stock else "graceful.worker.Graceful"
            arguments += ["--worker-class", f"{prefix}{CLASSES[mode]}Worker"]
        if mode == "burst":
            arguments.append("--burst")
        if mode == "scheduler" or with_scheduler:
            arguments.append("--with-scheduler")
        environment = {}
        if bent_clock:
            environment[CLOCK_VARIABLE] = str(self.clock)
        output = worker.output_path
        if piped:
            output = output.with_suffix(".pipe")
            os.mkfifo(output)
            threading.Thread(target=worker.pour, args=(output,), daemon=True).start()
        self._send_order(
            worker,
            {
                "arguments": arguments,
                "output": str(output),
                "environment": environment,
                "settings": {**self.settings, **(settings or {})},
            },
            self.queue(proxied=proxied),
        )
        return worker

    def start_actor(self, name: str) -> Worker:
        """Fork one of :data:`tests.chaos.actors.ACTORS`."""
        actor = Worker(name, self._new_log())
        order = {"actor": name, "output": str(actor.output_path), "environment": {}, "settings": self.settings}
        self._send_order(actor, order, self.queue())
        return actor

    def _new_log(self) -> Path:
        self._count += 1
        return self.directory / f"worker-{self._count}.log"

    def _send_order(self, worker: Worker, order: dict[str, Any], queue: dict[str, Any]) -> None:
        # A horse that RQ spawns reads the settings anew, and finds in the environment what it needs.
        order = {**order, **self.order(), "queue": queue}
        if "URL" in queue:
            order["environment"]["TEST_REDIS_URL"] = queue["URL"]
        else:
            order["settings"] = {**order["settings"], "RQ_QUEUES": dict.fromkeys(QUEUES, queue)}
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        with self._starting:
            self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
            self._nursery.stdin.flush()
            with self._news:
                assert self._news.wait_for(lambda: bool(self._started), 30), "the forkserver does not answer"
                worker.pid = self._started.pop()
                self._workers[worker.pid] = worker
                if worker.pid in self._early:
                    _end(worker, self._early.pop(worker.pid))

    def let_time_pass(self, seconds: float) -> None:
        """Make Redis as it will be in so many seconds, if none of those that are connected writes anything."""
        self.connection.eval(TIME_PASSES_SCRIPT, 0, seconds)

    def bend_clock(self, seconds: float) -> None:
        """Set the wall clock of the workers that follow it."""
        with self.clock.open("r+b") as file:
            file.write(struct.pack("=d", seconds))

    def clean(self) -> None:
        """Make ready for the next round: nothing of the last one is left."""
        for worker in self._workers.values():
            if not worker.ended.is_set() or pids_in_session(worker.pid):
                worker.signal_session(signal.SIGKILL)
                worker.ended.wait(5)
                wait_until(lambda pid=worker.pid: not pids_in_session(pid), 5, f"{worker!r} is gone")  # type: ignore[misc]
            worker.output_path.unlink(missing_ok=True)
        self._workers.clear()
        self.clean_services()
        self.ledger.clear()
        self.bend_clock(0.0)
        shutil.rmtree(self.spool, ignore_errors=True)
        with closing(self.open_database()) as database:
            for table in ("graceful_reportedhook", "graceful_reportedjob", "graceful_shutdownreport"):
                database.execute(f"DELETE FROM {table}")

    def clean_services(self) -> None:
        self.connection.flushall()
        (self.server.directory / "dump.rdb").unlink(missing_ok=True)

    def zombies(self, session: int) -> list[int]:
        """Pids of a session that only wait to be reaped, where a worker cannot tell those from living ones."""
        return []

    def is_workers(self, client: Mapping[str, str]) -> bool:
        """Whether a line of ``CLIENT LIST`` may be a worker's, and is not of the lane's services among themselves."""
        return True

    def open_database(self) -> Any:
        """A connection to the reports' database, in autocommit."""
        return sqlite3.connect(self.database, timeout=5, isolation_level=None)

    def reports(self) -> list[StoredReport]:
        """Reports in database, journal and spool, each once: where one is in several places, the database's."""
        found: dict[str, StoredReport] = {}
        places: list[tuple[str, str | bytes]] = [
            ("journal", value) for value in self.connection.hvals("graceful:journal")
        ]
        if self.spool.is_dir():
            places += [("spool", path.read_bytes()) for path in self.spool.glob("*.json")]
        for place, text in places:
            try:
                report = report_json.load(text)
            except UnreadableReport:
                continue
            if report.outcome is not None:
                found[report.id] = StoredReport(report.pid, place, report.outcome.value, report.exit_code)
        with closing(self.open_database()) as database:
            rows = database.execute("SELECT id, pid, outcome, exit_code FROM graceful_shutdownreport")
            for report_id, pid, outcome, exit_code in rows:
                found[report_id] = StoredReport(pid, "database", outcome, exit_code)
        return list(found.values())

    def interruptions_told(self) -> Counter[str]:
        """In how many reports each job was interrupted or killed."""
        with closing(self.open_database()) as database:
            rows = database.execute("SELECT job_id, outcome FROM graceful_reportedjob")
            return Counter(job_id for job_id, outcome in rows if outcome in INTERRUPTED)


def _end(worker: Worker, news: dict[str, Any]) -> None:
    worker.code, worker.ended_at = news["code"], news["at"]
    worker.ended.set()


def _send(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass
