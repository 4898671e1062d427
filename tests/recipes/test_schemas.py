"""The files of the recipes against what their platforms publish: schemas, models, or the platform's own program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator

from tests.support.recipe_files import blocks, only
from tests.support.stand_ins import EcsAgent

KUBERNETES = ["1.30", "1.33", kubernetes_validate.latest_version()]
MANIFESTS = [
    document
    for page in ("recipes/kubernetes", "scale-in")
    for block in blocks(page, "yaml")
    for document in yaml.safe_load_all(block)
    if "kind" in document
]


def ecs_report(operation: str, parameters: dict[str, Any]) -> str:
    """What AWS' own model of an operation has against these parameters; empty if nothing."""
    model = botocore.session.get_session().get_service_model("ecs").operation_model(operation)
    report: str = ParamValidator().validate(parameters, model.input_shape).generate_report()
    return report


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_manifests(manifest: dict[str, Any], version: str) -> None:
    """Each manifest is valid by Kubernetes' published schema, and has no field that it does not know."""
    kubernetes_validate.validate(manifest, version, strict=True)


def test_an_error_in_a_manifest_is_found() -> None:
    """The schema knows the fields that matter here."""
    (deployment,) = (each for each in MANIFESTS if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod["terminationGracePeriod"] = pod.pop("terminationGracePeriodSeconds")
    try:
        with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
            kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)
    finally:
        pod["terminationGracePeriodSeconds"] = pod.pop("terminationGracePeriod")


def test_the_part_of_a_pod() -> None:
    """The fragment for scale-in is a valid part of the recipe's Deployment."""
    (deployment,) = (each for each in MANIFESTS if each["kind"] == "Deployment")
    (fragment,) = (each for block in blocks("scale-in", "yaml") for each in yaml.safe_load_all(block) if "spec" in each)
    pod = deployment["spec"]["template"]["spec"]
    container = {**pod["containers"][0], "env": pod["containers"][0]["env"] + fragment["spec"]["containers"][0]["env"]}
    merged = {**pod, **fragment["spec"], "containers": [container]}
    whole = {
        **deployment,
        "spec": {**deployment["spec"], "template": {**deployment["spec"]["template"], "spec": merged}},
    }
    for version in KUBERNETES:
        kubernetes_validate.validate(whole, version, strict=True)


def test_compose(tmp_path: Path) -> None:
    """docker-compose itself accepts the file."""
    (tmp_path / "compose.yaml").write_text(only("recipes/docker", "yaml"))
    command = ["docker-compose", "--file", str(tmp_path / "compose.yaml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"]["worker"]["stop_grace_period"] == "30s"


def test_ecs_task_definition() -> None:
    """The task definition is what AWS' model of RegisterTaskDefinition takes."""
    definition = json.loads(only("recipes/ecs", "json"))
    assert ecs_report("RegisterTaskDefinition", definition) == ""
    definition["containerDefinitions"][0]["stopTimeOut"] = 120
    assert "stopTimeOut" in ecs_report("RegisterTaskDefinition", definition)


def test_the_stand_in_answers_as_ecs() -> None:
    """What the stand-in of ECS' agent answers has the fields of AWS' model of a protected task, and of a failure."""
    model = botocore.session.get_session().get_service_model("ecs").operation_model("UpdateTaskProtection")
    members = model.output_shape.members
    agent = EcsAgent()
    request = {"method": "PUT", "path": EcsAgent.PATH, "body": {"ProtectionEnabled": True, "ExpiresInMinutes": 10}}
    protection: Any = agent.answer(request)[1]
    agent.failure = "DEPLOYMENT_BLOCKED"
    failure: Any = agent.answer(request)[1]
    for answer, shape in ((protection["protection"], "protectedTasks"), (failure["failure"], "failures")):
        known = {name.lower() for name in members[shape].member.members}
        assert {name.lower() for name in answer} <= known
