"""Busy and idle hooks that keep a platform from stopping a busy worker where it could stop an idle one.

Each belongs in both lists, ``GRACEFUL_BUSY_HOOKS`` and ``GRACEFUL_IDLE_HOOKS``; ``docs/scale-in.md`` says what they
need. Elsewhere than on their platform they are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from graceful.core.activity import RENEW_SECONDS, Activity
from graceful.core.text import cut
from graceful.exceptions import HookSkipped

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
EXPIRES_IN_MINUTES = int(2 * RENEW_SECONDS / 60)
"""Twice the time after which it is renewed; that of a worker that was killed ends by itself."""
ANSWER_LIMIT = 64 * 1024
SHORTEST_SECONDS = 0.1


class Refused(RuntimeError):
    """The platform refused the request; the message has its answer."""


def ecs_task_protection(activity: Activity, expires_in_minutes: int = EXPIRES_IN_MINUTES) -> str:
    """Protect this ECS task from scale-in and deployments while the worker is busy.

    Source: "Amazon ECS task scale-in protection endpoint" of the ECS developer guide; the agent's answers as in
    amazon-ecs-agent, ``ecs-agent/tmds/handlers/taskprotection/v1``.

    Args:
        activity: whether the worker is busy.
        expires_in_minutes: from 1 to 2880; a busy worker renews it every 5 minutes.

    Raises:
        HookSkipped: this is no ECS task.
        Refused: the agent or ECS refused it.
        OSError: the agent did not answer.
    """
    agent = os.environ.get("ECS_AGENT_URI")
    if not agent:
        raise HookSkipped("not an ECS task: ECS_AGENT_URI is not set")
    wanted: dict[str, object] = {"ProtectionEnabled": activity.busy}
    if activity.busy:
        wanted["ExpiresInMinutes"] = expires_in_minutes
    request = Request(f"{agent}/task-protection/v1/state", _as_json(wanted), method="PUT")
    request.add_header("Content-Type", "application/json")
    answer = _sent(request, activity)
    # What ECS refuses comes with the status 200 and a "failure", for instance while the task is being stopped.
    protection = answer.get("protection")
    if not isinstance(protection, dict) or protection.get("ProtectionEnabled") is not activity.busy:
        raise Refused(f"ECS refused it: {cut(json.dumps(answer), 300)}")
    return "task protected" if activity.busy else "task not protected"


def kubernetes_pod_deletion_cost(activity: Activity, busy_cost: int = 100, idle_cost: int = 0) -> str:
    """Set this pod's deletion cost, by which a ReplicaSet chooses the pods that it removes: lower ones first.

    Sources: "Pod deletion cost" in the Kubernetes documentation of ReplicaSet, and "Accessing the Kubernetes API from
    a Pod".

    Args:
        activity: whether the worker is busy.
        busy_cost: the pod's cost while it is.
        idle_cost: and while it is not; 0 is that of a pod without the annotation.

    Raises:
        HookSkipped: this is no pod.
        Refused: the API server refused it, for instance for want of the right to patch pods.
        OSError: the API server did not answer, or the pod has no service account.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise HookSkipped("not a pod: KUBERNETES_SERVICE_HOST is not set")
    # The host name is the pod's, unless it has more than 63 characters, hostNetwork or a hostname of its own.
    pod = os.environ.get("POD_NAME") or socket.gethostname()
    # Read each time: the kubelet replaces the token before it expires.
    namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    token = (SERVICE_ACCOUNT / "token").read_text().strip()
    if not token.isprintable():  # http.client would refuse it with an error that shows it.
        raise Refused("the token of the service account is not one line of text")
    server = f"[{host}]" if ":" in host else host
    cost = str(busy_cost if activity.busy else idle_cost)
    request = Request(
        f"https://{server}:{port}/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}",
        _as_json({"metadata": {"annotations": {DELETION_COST: cost}}}),
        method="PATCH",
    )
    request.add_header("Content-Type", "application/merge-patch+json")
    request.add_header("Authorization", f"Bearer {token}")
    _sent(request, activity, ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")))
    return f"{DELETION_COST}: {cost}"


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _sent(request: Request, activity: Activity, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    # Never through a proxy: both addresses are this machine's or this cluster's.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    what = f"{request.get_method()} {request.selector}"
    try:
        with opener.open(request, timeout=max(SHORTEST_SECONDS, activity.time_left())) as response:
            said = response.read(ANSWER_LIMIT)
    except HTTPError as error:
        with error:
            said = error.read(ANSWER_LIMIT)
        text = said.decode(errors="replace")
        raise Refused(f"{what}: {error.code} {error.reason}: {cut(text, 300)}") from None
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise Refused(f"{what}: the answer is no JSON: {error}") from None
    if not isinstance(answer, dict):
        raise Refused(f"{what}: the answer is no JSON object")
    return answer
