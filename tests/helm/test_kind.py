"""deploy/kind: what it says fits the chart, and the script does its steps in order, also twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.broker.faults.tools import need
from tests.helm.chart import CHART, ROOT, WAYS, render
from tests.helm.test_schemas import VERSIONS

KIND = ROOT / "deploy" / "kind"
TOOLS = ("docker", "kind", "kubectl", "helm", "make")


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KIND / "influxdb.yaml").read_text()))


@pytest.mark.parametrize("version", VERSIONS)
def test_influxdb_is_valid(version: str) -> None:
    for each in manifests():
        kubernetes_validate.validate(each, version, strict=True)


def test_the_ports_of_this_machine_lead_to_the_services() -> None:
    cluster = yaml.safe_load((KIND / "cluster.yaml").read_text())
    mapped = {each["hostPort"]: each for each in cluster["nodes"][0]["extraPortMappings"]}
    api = render(*WAYS["kind"]).one("Service", "tele-api")["spec"]
    influxdb = next(each for each in manifests() if each["kind"] == "Service")["spec"]
    assert api["type"] == influxdb["type"] == "NodePort"
    assert {port: each["containerPort"] for port, each in mapped.items()} == {
        8080: api["ports"][0]["nodePort"],
        8086: influxdb["ports"][0]["nodePort"],
    }
    # The API asks for no token there: nobody else may reach it.
    assert {each["listenAddress"] for each in mapped.values()} == {"127.0.0.1"}


def test_the_chart_finds_that_influxdb() -> None:
    values = yaml.safe_load((CHART / "values-kind.yaml").read_text())["influxdb"]
    service = next(each for each in manifests() if each["kind"] == "Service")
    assert values["url"] == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    pod = next(each for each in manifests() if each["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    assert {"name": "secret", "secret": {"secretName": values["existingSecret"]}} in pod["volumes"]
    environ = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["influxdb"]
    assert environ["DOCKER_INFLUXDB_INIT_ORG"] == defaults["org"]
    assert environ["DOCKER_INFLUXDB_INIT_BUCKET"] == defaults["bucket"]
    assert environ["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE"].endswith(f"/{values['existingSecretKey']}")


def test_the_scripts_have_nothing_that_a_linter_minds() -> None:
    need("shellcheck")
    scripts = [*(ROOT / "ci").glob("*.sh"), *(ROOT / "deploy").rglob("*.sh")]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def run(tmp_path: Path, *arguments: str, without: str = "", answers: str = "") -> tuple[int, str, list[str]]:
    """Run the script with stand-ins that write down how they are called: exit status, what it said, the calls."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir(exist_ok=True)
    calls.write_text("")
    for tool in TOOLS:
        path = folder / tool
        path.unlink(missing_ok=True)
        if tool == without:
            continue
        path.write_text(f'#!/bin/sh\necho "{tool} $*" >> {calls}\ncase "{tool} $*" in\n{answers}\n*) exit 0;;\nesac\n')
        path.chmod(0o755)
    done = subprocess.run(
        [str(KIND / "up.sh"), *arguments],
        env={**os.environ, "PATH": f"{folder}:{os.defpath}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


NOTHING_YET = '*"get secret influxdb") exit 1;;'


def test_the_script_does_all_steps_in_order(tmp_path: Path) -> None:
    status, said, calls = run(tmp_path, answers=NOTHING_YET)
    assert status == 0, said
    order = [
        "kind create cluster --config deploy/kind/cluster.yaml",
        "make docker-build VERSION=latest",
        "kind load docker-image gpu-telemetry-pipeline/mq-server:latest",
        "kind load docker-image gpu-telemetry-pipeline/api:latest",
        "create namespace gpu-telemetry",
        "create secret generic influxdb",
        "apply --filename deploy/kind/influxdb.yaml",
        "rollout status statefulset/influxdb",
        "upgrade --install tele helm/gpu-telemetry --values helm/gpu-telemetry/values-kind.yaml --wait",
        "rollout status deployment/tele-api",
        "test tele",
    ]
    places = [next(number for number, call in enumerate(calls) if step in call) for step in order]
    assert places == sorted(places)
    # No other cluster than its own.
    for call in calls:
        if call.startswith("kubectl"):
            assert "--context kind-gpu-telemetry" in call
        if call.startswith("helm"):
            assert "--kube-context kind-gpu-telemetry" in call
    secret = next(call for call in calls if "create secret" in call)
    assert re.search(r"password=[0-9a-f]{48} --from-literal=token=[0-9a-f]{48}$", secret)


def test_a_second_run_keeps_the_cluster_and_its_secrets(tmp_path: Path) -> None:
    status, said, calls = run(tmp_path, answers='"kind get clusters") echo gpu-telemetry; exit 0;;')
    assert status == 0, said
    assert not [call for call in calls if "create cluster" in call or "create secret" in call]
    assert [call for call in calls if "rollout restart" in call]


def test_captures_become_a_config_map(tmp_path: Path) -> None:
    capture = tmp_path / "telemetry.csv"
    capture.write_text("x\n")
    status, said, calls = run(tmp_path, str(capture), answers=NOTHING_YET)
    assert status == 0, said
    assert [call for call in calls if f"create configmap dcgm-capture --from-file={capture}" in call]
    assert [call for call in calls if "--set streamer.data.existingConfigMap=dcgm-capture" in call]
    status, said, calls = run(tmp_path, str(tmp_path / "none.csv"))
    assert (status, calls) == (1, [])
    assert "none.csv is no file" in said


def test_it_can_be_removed(tmp_path: Path) -> None:
    assert run(tmp_path, "--delete")[2] == ["kind delete cluster --name gpu-telemetry"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_is_missing_is_named(tmp_path: Path, tool: str) -> None:
    if shutil.which(tool, path=os.defpath):
        pytest.skip(f"{tool} is on the default PATH")
    status, said, calls = run(tmp_path, without=tool)
    assert (status, calls) == (1, [])
    assert f"error: {tool} is not here" in said


def test_a_step_that_fails_ends_the_script(tmp_path: Path) -> None:
    status, _, calls = run(tmp_path, answers='"make docker-build"*) exit 2;;')
    assert status == 2
    assert not [call for call in calls if "kind load" in call]


def test_the_page_has_the_commands_that_the_script_runs() -> None:
    page = (KIND / "README.md").read_text()
    script = (KIND / "up.sh").read_text()
    for command in (
        "kind create cluster --config deploy/kind/cluster.yaml --wait 120s",
        "make docker-build VERSION=latest",
    ):
        assert command in page
        assert command in script
    assert "--values helm/gpu-telemetry/values-kind.yaml" in page
