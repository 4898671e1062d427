"""Lanes whose workers are connected to something else than Valkey and SQLite: PostgreSQL with a pool, Redis by way of
Sentinels, Redis over TLS. All of them are Debian's packages (postgresql, redis-server, redis-sentinel).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.sentinel import Sentinel

from tests.chaos.lane import Lane
from tests.chaos.plan import ACTORS
from tests.chaos.proxy import Proxy
from tests.support.server import Server
from tests.support.waiting import wait_until

GROUP = "chaos"
"""The Sentinels' name of the primary and its replicas."""
SENTINELS = 3
FIRST_USER = 20000


def redis_binary() -> str:
    """Path of a Redis server; the embedded Valkey knows neither TLS nor Sentinels."""
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or "/usr/bin/redis-server"


class TlsLane(Lane):
    """Redis over TLS, with certificates of its own."""

    service = "tls"

    def make_server(self) -> Server:
        return Server(binary=redis_binary(), certificates=make_certificates(self.directory / "tls"))


def make_certificates(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, made with openssl."""
    directory.mkdir()
    key, certificate = directory / "server.key", directory / "server.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = ["openssl", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


class HidepidLane(Lane):
    """A ``/proc`` that shows each user their own processes only (``hidepid=2``), and a user for each worker.

    In a mount namespace of its own, and a new instance of procfs: remounting the machine's would change it for all.
    """

    service = "hidepid"

    def __init__(self) -> None:
        super().__init__()
        self._users = 0

    def nursery_command(self) -> list[str]:
        mount = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
        return ["unshare", "-m", "sh", "-c", mount, "sh", *super().nursery_command()]

    def zombies(self, session: int) -> list[int]:
        # kill(2) finds them, and their state is hidden: a reaper would rightly wait for the heartbeat.
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                if os.getsid(pid) == session:
                    found.append(pid)
            except ProcessLookupError:
                continue
        return found

    def order(self) -> dict[str, Any]:
        self._users += 1
        return {"uid": FIRST_USER + self._users}


class PostgresLane(Lane):
    """PostgreSQL for the reports, with Django's pool of connections in each worker."""

    service = "postgres"

    def __init__(self) -> None:
        super().__init__()
        self.postgres = Postgres(self.directory / "postgres")

    def start_services(self) -> None:
        super().start_services()
        self.postgres.create()

    def stop_services(self) -> None:
        self.postgres.resume()
        self.postgres.stop("immediate")
        super().stop_services()

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def settings(self) -> dict[str, Any]:
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "graceful",
            "USER": "graceful",
            "HOST": str(self.postgres.directory),
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 5}},
        }
        return {**super().settings, "DATABASES": {"default": entry}, "CHAOS_JOBS_READ_DATABASE": True}

    def open_database(self) -> Any:
        return self.postgres.connect()


class Postgres:
    """A PostgreSQL cluster. It does not run as root: then it is the user postgres's.

    Args:
        directory: of its files and its socket.
        options: further ones of ``postgres``.
    """

    def __init__(self, directory: Path, options: str = "") -> None:
        self.directory = directory
        self._options = options
        self._data = directory / "data"
        self._paused: list[int] = []

    @property
    def url(self) -> str:
        return f"postgres://graceful@/graceful?host={self.directory}"

    def create(self) -> None:
        """Make and start it, with an empty database."""
        self.directory.mkdir()
        self.directory.parent.chmod(0o755)
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "graceful", "--auth", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        self._run("createdb", "-h", str(self.directory), "-U", "graceful", "graceful")

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.directory} -c fsync=off -c max_connections=24 {self._options}"
        log = self.directory / "log"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(log), "-o", options)

    def stop(self, mode: str) -> None:
        """End it; nothing happens where it does not run.

        Args:
            mode: of ``pg_ctl stop``: ``fast`` or ``immediate``.
        """
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data))

    def pause(self) -> None:
        """Stop all its processes from answering."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        self._paused = [postmaster, *map(int, children)]
        self._signal_paused(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_paused(signal.SIGCONT)
        self._paused = []

    def _signal_paused(self, signum: signal.Signals) -> None:
        for pid in self._paused:
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    def connect(self, user: str = "graceful") -> Any:
        """A connection in autocommit."""
        import psycopg

        return psycopg.connect(host=str(self.directory), user=user, dbname="graceful", autocommit=True)

    def terminate_backends(self) -> None:
        """End everybody's connections."""
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    @contextmanager
    def all_connections_taken(self) -> Iterator[None]:
        import psycopg

        taken: list[Any] = []
        try:
            while True:
                try:
                    taken.append(self.connect())
                except psycopg.OperationalError:
                    break
            yield
        finally:
            for each in taken:
                each.close()

    def _run(self, program: str, *arguments: str) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        path = str(binaries[-1]) if binaries else shutil.which(program)
        assert path, f"{program} is not installed"
        command = [path, *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Into a file, not a pipe: the server that pg_ctl starts keeps it open.
        log = self.directory.with_suffix(".log")
        with log.open("ab") as output:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", timeout=60)
        assert done.returncode == 0, f"{command}: {log.read_text(errors='replace')[-2000:]}"


class SentinelLane(Lane):
    """Redis with a replica and three Sentinels."""

    service = "sentinel"
    # An idle stock worker that is connected by way of Sentinels does not end at SIGTERM.
    actors = tuple(actor for actor in ACTORS if actor != "stock")

    def make_server(self) -> Server:
        self.group = SentinelGroup(self.directory)
        return self.group.servers[0]

    def start_services(self) -> None:
        self.group.start()
        self.connection = self.group.client(socket_timeout=10)
        self.proxy = Proxy(self.server.port)

    def stop_services(self) -> None:
        if hasattr(self, "proxy"):
            self.proxy.close()
        self.group.close()

    def queue(self, *, proxied: bool = False) -> dict[str, Any]:
        return {"SENTINELS": self.group.addresses, "MASTER_NAME": GROUP, "DB": 0, "SOCKET_TIMEOUT": 2}

    def is_workers(self, client: Mapping[str, str]) -> bool:
        return "S" not in client["flags"] and not client["name"].startswith("sentinel-")

    def clean_services(self) -> None:
        self.group.heal()
        self.connection.flushall()
        self.group.wait_replicated()


class SentinelGroup:
    """A primary, a replica, and the Sentinels that look after them.

    Args:
        directory: of the Sentinels' files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A replica that is behind by a fraction of a second may become the primary at once.
        options = {"repl-diskless-sync-delay": "0", "repl-timeout": "5", "repl-backlog-size": "10mb"}
        self.servers = [Server(options, binary=redis_binary()) for _ in range(2)]
        self._sentinels: list[Server] = []
        self._failing_over_from = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", sentinel.port) for sentinel in self._sentinels]

    def client(self, **options: Any) -> redis.Redis:
        """A client that finds the primary of the moment."""
        return Sentinel(self.addresses, sentinel_kwargs={"socket_timeout": 5}, **options).master_for(GROUP)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        primary, replica = self.servers
        with replica.client() as client:
            client.replicaof("127.0.0.1", str(primary.port))
        for number in range(SENTINELS):
            file = self._directory / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor {GROUP} 127.0.0.1 {primary.port} 2\n"
                f"sentinel down-after-milliseconds {GROUP} 1000\n"
                f"sentinel failover-timeout {GROUP} 2000\n"
            )
            self._sentinels.append(Server(binary=redis_binary(), sentinel=file).start())
        self._wait_known()

    def close(self) -> None:
        for server in (*self._sentinels, *self.servers):
            server.close()

    def primary(self) -> Server:
        """Which one the Sentinels say it is."""
        with self._sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(GROUP)
        return next(server for server in self.servers if server.port == port)

    def kill_primary(self) -> None:
        primary = self.primary()
        self._failing_over_from = primary.port
        primary.kill()

    def order_failover(self) -> None:
        self._failing_over_from = self.primary().port
        with self._sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", GROUP)

    def wait_failover(self) -> None:
        """Wait until all Sentinels name another primary than before, and it takes writes."""
        if not self._failing_over_from:
            return

        def over() -> bool:
            for sentinel in self._sentinels:
                with sentinel.client() as client:
                    if client.sentinel_get_master_addr_by_name(GROUP)[1] == self._failing_over_from:
                        return False
            with self.primary().client() as client:
                return client.role()[0] == b"master"

        wait_until(over, 20, self._state, interval=0.05)
        self._failing_over_from = 0

    def wait_replicated(self) -> None:
        """Wait until the replica has all that was written."""
        with self.primary().client() as client:
            # WAIT speaks of what was written over its own connection.
            wait_until(lambda: client.set("chaos", "", px=1) and client.wait(1, 1000) == 1, 20, self._state)

    def heal(self) -> None:
        """Both servers run again, one as the other's replica, and the Sentinels know."""
        primary = self.primary()
        for server in self.servers:
            if not server.running:
                server.start()
            if server is not primary:
                with server.client() as client:
                    if client.role()[:3] != [b"slave", b"127.0.0.1", primary.port]:
                        client.replicaof("127.0.0.1", str(primary.port))
        self._wait_known()

    def _wait_known(self) -> None:
        """Wait until each Sentinel sees the primary, a replica in step, and the other Sentinels."""

        def known() -> bool:
            for sentinel in self._sentinels:
                with sentinel.client() as client:
                    state: Any = client.sentinel_master(GROUP)
                    replicas: Any = client.sentinel_slaves(GROUP)
                usable = [each for each in replicas if each["flags"] == "slave" and each["master-link-status"] == "ok"]
                if state["flags"] != "master" or state["num-other-sentinels"] != SENTINELS - 1 or not usable:
                    return False
            return True

        wait_until(known, 20, self._state, interval=0.05)

    def _state(self) -> str:
        """For the message of what never happened."""
        with self._sentinels[0].client() as client:
            return f"{client.sentinel_master(GROUP)} {client.sentinel_slaves(GROUP)}"


LANES: dict[str, type[Lane]] = {lane.service: lane for lane in (Lane, TlsLane, HidepidLane, PostgresLane, SentinelLane)}
