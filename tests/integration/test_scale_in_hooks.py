"""The ready hooks for scale-in, against stand-ins of ECS' agent and of Kubernetes' API server."""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from graceful.core.activity import Activity
from graceful.core.deadline import Deadline
from graceful.exceptions import HookSkipped
from graceful.hooks import scale_in
from graceful.hooks.calls import wants_shutdown
from graceful.hooks.scale_in import Refused, ecs_task_protection, kubernetes_pod_deletion_cost
from tests.support.stand_ins import EcsAgent, KubernetesApi


def activity(busy: bool, seconds: float = 5.0) -> Activity:
    return Activity(busy, "worker-1", ("default",), Deadline.after(seconds))


BUSY, IDLE = activity(True), activity(False)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsAgent]:
    """An ECS agent, and the variable by which a task finds it."""
    stand_in = EcsAgent()
    monkeypatch.setenv("ECS_AGENT_URI", stand_in.uri)
    # A proxy for the world outside is not asked for it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with stand_in.running():
        yield stand_in


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """An API server, and all by which a pod finds it."""
    account = tmp_path / "serviceaccount"
    account.mkdir()
    stand_in = KubernetesApi(account)
    monkeypatch.setattr(scale_in, "SERVICE_ACCOUNT", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(stand_in.port))
    monkeypatch.setenv("POD_NAME", "shop-worker-7d4b")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with stand_in.running():
        yield stand_in


@pytest.mark.parametrize("hook", [ecs_task_protection, kubernetes_pod_deletion_cost])
def test_a_hook_is_given_the_activity(hook: object) -> None:
    """The hooks need one argument, and still do with others bound."""
    assert callable(hook)
    assert wants_shutdown(hook)
    assert wants_shutdown(functools.partial(ecs_task_protection, expires_in_minutes=60))


def test_ecs(agent: EcsAgent) -> None:
    """A busy worker's task is protected for some minutes, and an idle one's is not."""
    assert ecs_task_protection(BUSY) == "task protected"
    assert agent.protected
    assert ecs_task_protection(IDLE) == "task not protected"
    assert not agent.protected
    assert [request["body"] for request in agent.requests] == [
        {"ProtectionEnabled": True, "ExpiresInMinutes": 10},
        {"ProtectionEnabled": False},
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, {"failure": {"Arn": EcsAgent.ARN, "Reason": "DEPLOYMENT_BLOCKED"}}), "DEPLOYMENT_BLOCKED"),
        ((403, {"error": {"Code": "AccessDeniedException", "Message": "no task IAM role"}}), "403 .*no task IAM role"),
        ((200, b"<html>"), "no JSON"),
        ((200, []), "no JSON object"),
        ((200, {"protection": {"ProtectionEnabled": False}}), "refused"),
        ((302, b""), "302"),
    ],
)
def test_ecs_refuses(agent: EcsAgent, answer: tuple[int, object], expected: str) -> None:
    """An answer that is no success is an error with what the agent says, also where its status is 200."""
    agent.answer = lambda request: answer  # type: ignore[method-assign]
    with pytest.raises(Refused, match=expected):
        ecs_task_protection(BUSY)


def test_ecs_refuses_a_time_that_is_too_long(agent: EcsAgent) -> None:
    """A time that ECS does not allow is told with ECS' words."""
    with pytest.raises(Refused, match=r"400 .*expiresInMinutes"):
        ecs_task_protection(BUSY, expires_in_minutes=2881)


def test_an_agent_that_hangs(agent: EcsAgent) -> None:
    """A request ends with the hook's time."""
    over = threading.Event()
    agent.before_answer = over.wait
    try:
        with pytest.raises(TimeoutError):
            ecs_task_protection(activity(True, seconds=0.2))
    finally:
        over.set()


def test_not_on_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, for instance on a developer's machine, the hooks are skipped."""
    monkeypatch.delenv("ECS_AGENT_URI", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for hook in (ecs_task_protection, kubernetes_pod_deletion_cost):
        with pytest.raises(HookSkipped):
            hook(BUSY)


def test_kubernetes(api: KubernetesApi) -> None:
    """The pod's annotation is that of a busy or an idle worker; nothing else of the pod is touched."""
    api.annotations["shop-worker-7d4b"] = {"other": "kept"}
    assert kubernetes_pod_deletion_cost(BUSY) == "controller.kubernetes.io/pod-deletion-cost: 100"
    assert api.annotations["shop-worker-7d4b"] == {"other": "kept", scale_in.DELETION_COST: "100"}
    kubernetes_pod_deletion_cost(IDLE, idle_cost=-5)
    assert api.annotations["shop-worker-7d4b"][scale_in.DELETION_COST] == "-5"


def test_a_pod_without_its_name(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name is the pod's name where the environment does not tell it."""
    monkeypatch.delenv("POD_NAME")
    kubernetes_pod_deletion_cost(BUSY)
    assert list(api.annotations) == [socket.gethostname()]


def test_kubernetes_refuses(api: KubernetesApi) -> None:
    """The error names the right that is missing, and not the token."""
    api.allowed = False
    with pytest.raises(Refused, match=r"403 Forbidden: .*cannot patch resource") as raised:
        kubernetes_pod_deletion_cost(BUSY)
    assert api.TOKEN not in str(raised.value)


def test_a_token_of_two_lines_is_not_shown(api: KubernetesApi) -> None:
    """A token that is no header's value is refused without being shown."""
    (scale_in.SERVICE_ACCOUNT / "token").write_text("secret\nline")
    with pytest.raises(Refused) as raised:
        kubernetes_pod_deletion_cost(BUSY)
    assert "secret" not in str(raised.value)


def test_a_certificate_of_another_authority(api: KubernetesApi, tmp_path: Path) -> None:
    """The token is sent to no server but the cluster's."""
    other = tmp_path / "other"
    other.mkdir()
    KubernetesApi(other)
    (scale_in.SERVICE_ACCOUNT / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        kubernetes_pod_deletion_cost(BUSY)
    assert api.requests == []
