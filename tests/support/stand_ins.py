"""Stand-ins of the APIs that scale-in hooks talk to, on this machine; they answer as the documented ones do."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

Answer = tuple[int, object]


class StandIn:
    """An HTTP server in threads, which keeps what it was asked.

    Args:
        tls: its certificate, or None for plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.before_answer: Callable[[], object] = lambda: None
        """Called before an answer is given: an event's ``wait`` makes the server hang."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
                stand_in.requests.append(request)
                stand_in.before_answer()
                status, answer = stand_in.answer(request)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_PUT = do_PATCH = _any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that hangs up, or that does not trust the certificate, is part of the test."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    def answer(self, request: dict[str, Any]) -> Answer:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()


class EcsAgent(StandIn):
    """The task scale-in protection endpoint of the ECS container agent.

    As in amazon-ecs-agent (``ecs-agent/tmds/handlers/taskprotection/v1/handlers/handlers.go``): unknown fields are
    refused with 400, and what ECS itself refuses comes with the status 200 and a ``failure``.
    """

    ARN = "arn:aws:ecs:eu-central-1:111122223333:task/shop/0b69d5c0d655cb2b7c2e7e4d3d3c6e3c"
    PATH = "/api/0b69d5c0-3822/task-protection/v1/state"

    def __init__(self) -> None:
        super().__init__()
        self.failure = ""
        """Why ECS refuses what it is asked, for instance ``DEPLOYMENT_BLOCKED``."""
        self.protected = False

    @property
    def uri(self) -> str:
        """The value of ``ECS_AGENT_URI``."""
        return f"http://127.0.0.1:{self.port}/api/0b69d5c0-3822"

    @property
    def told(self) -> list[bool]:
        """What was asked for, in order."""
        return [request["body"]["ProtectionEnabled"] for request in self.requests]

    def answer(self, request: dict[str, Any]) -> Answer:
        asked = request["body"]
        if (request["method"], request["path"]) != ("PUT", self.PATH):
            return 404, b"404 page not found\n"
        minutes = asked.get("ExpiresInMinutes")
        if set(asked) - {"ProtectionEnabled", "ExpiresInMinutes"} or not isinstance(
            asked.get("ProtectionEnabled"), bool
        ):
            return 400, {"error": {"Code": "InvalidParameterException", "Message": "failed to decode request"}}
        if minutes is not None and not 1 <= minutes <= 2880:
            return 400, {"error": {"Arn": self.ARN, "Code": "InvalidParameterException", "Message": "expiresInMinutes"}}
        if self.failure:
            return 200, {"failure": {"Arn": self.ARN, "Detail": None, "Reason": self.failure}}
        self.protected = asked["ProtectionEnabled"]
        protection: dict[str, object] = {"ProtectionEnabled": self.protected, "TaskArn": self.ARN}
        if self.protected:
            protection["ExpirationDate"] = "2026-11-25T21:50:16Z"
        return 200, {"protection": protection}


class KubernetesApi(StandIn):
    """``PATCH`` of a pod, over TLS, with the token of a service account.

    Args:
        account: a directory in which the service account's files are laid.
    """

    TOKEN = "eyJhbGciOiJSUzI1NiJ9.stand-in"

    def __init__(self, account: Path) -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        super().__init__(tls)
        self.allowed = True
        self.annotations: dict[str, dict[str, str]] = {}
        authority.cert_pem.write_to_path(str(account / "ca.crt"))
        (account / "token").write_text(f"{self.TOKEN}\n")
        (account / "namespace").write_text("shop")

    def answer(self, request: dict[str, Any]) -> Answer:
        if request["headers"].get("Authorization") != f"Bearer {self.TOKEN}":
            return 401, _status(401, "Unauthorized", "Unauthorized")
        pod = request["path"].rpartition("/")[2]
        if not self.allowed:
            user = 'User "system:serviceaccount:shop:default" cannot patch resource "pods" in API group ""'
            return 403, _status(403, "Forbidden", f'pods "{pod}" is forbidden: {user} in the namespace "shop"')
        if request["path"] != f"/api/v1/namespaces/shop/pods/{pod}" or request["method"] != "PATCH":
            return 404, _status(404, "NotFound", f'pods "{pod}" not found')
        if request["headers"]["Content-Type"] != "application/merge-patch+json":
            return 415, _status(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        annotations = request["body"]["metadata"]["annotations"]
        if not all(isinstance(value, str) for value in annotations.values()):
            return 400, _status(400, "BadRequest", "cannot restore map from number")
        self.annotations.setdefault(pod, {}).update(annotations)
        return 200, {"kind": "Pod", "metadata": {"name": pod, "annotations": self.annotations[pod]}}


def _status(code: int, reason: str, message: str) -> dict[str, object]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
