"""The chart as Helm renders it, for tests that look at the objects."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "gpu-telemetry"
EVERYTHING = Path(__file__).parent / "values-everything.yaml"
RELEASE, NAMESPACE = "tele", "fleet"

# Every way in which the chart is said to be used: the defaults, every optional part, the documented files, one pod.
WAYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "everything": ("-f", str(EVERYTHING)),
    "kind": ("-f", str(CHART / "values-kind.yaml")),
    "production": ("-f", str(CHART / "values-production.yaml")),
    "capture": ("-f", str(CHART / "values-capture.yaml")),
    "capture-once": ("-f", str(CHART / "values-capture.yaml"), "--set", "streamer.data.loop=false"),
    "own-ca": ("-f", str(CHART / "values-own-ca.yaml")),
    "sub-path": ("--set", "api.ingress.enabled=true,api.ingress.hosts={gpus.example.com},api.ingress.path=/gpu"),
    "sqlite": ("--set", "storage.type=sqlite,database.type=sqlite,api.replicaCount=1"),
    "memory": ("--set", "storage.type=memory,database.type=sqlite,api.replicaCount=1"),
    "upgrade": ("--is-upgrade",),
}
Object = dict[str, Any]


def find_helm() -> str:
    """The helm on PATH or in the cache; without one the test is skipped, or fails where REQUIRE_HELM is 1."""
    found = subprocess.run([str(ROOT / "ci" / "helm.sh"), "--find"], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    if found.returncode == 0 and path:
        return path
    message = "needs Helm 3: run make helm (a minute or two, once)"
    if os.environ.get("REQUIRE_HELM") == "1":
        pytest.fail(message)
    pytest.skip(message)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([find_helm(), *arguments], capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True)
class Container:
    """A container and where it runs."""

    owner: str  # kind/name of the object that has the pod
    component: str
    spec: Object
    pod: Object
    init: bool

    def __str__(self) -> str:
        return f"{self.owner}/{self.spec['name']}"


class Rendering:
    """All objects of one rendering."""

    def __init__(self, text: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
        self.objects: list[Object] = [each for each in yaml.load_all(text, loader) if each]

    def kind(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of that kind and name."""
        found = [each for each in self.kind(kind) if each["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind}/{name}"
        return found[0]

    def pods(self) -> Iterator[tuple[Object, Object, Object]]:
        """Of each object that has pods: the object, the pod's metadata, the pod's spec."""
        for each in self.objects:
            if each["kind"] == "Pod":
                yield each, each["metadata"], each["spec"]
            elif "template" in each.get("spec", {}):
                yield each, each["spec"]["template"]["metadata"], each["spec"]["template"]["spec"]

    def containers(self) -> list[Container]:
        """Every container of every pod."""
        return [
            Container(
                f"{each['kind']}/{each['metadata']['name']}",
                metadata["labels"]["app.kubernetes.io/component"],
                container,
                pod,
                group == "initContainers",
            )
            for each, metadata, pod in self.pods()
            for group in ("initContainers", "containers")
            for container in pod.get(group, ())
        ]

    def ours(self) -> list[Container]:
        """The containers with the project's images."""
        return [each for each in self.containers() if "gpu-telemetry-pipeline/" in each.spec["image"]]

    def container(self, component: str, name: str) -> Container:
        """One of them."""
        found = [each for each in self.containers() if (each.component, each.spec["name"]) == (component, name)]
        assert len(found) == 1
        return found[0]

    def environment(self, container: Container, pod_name: str = "") -> dict[str, str]:
        """What the container's process gets: from ConfigMaps, Secrets and the pod, with $(NAME) put in."""
        environ: dict[str, str] = {}
        for source in container.spec.get("envFrom", ()):
            environ |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.spec.get("env", ()):
            value = variable.get("value", "")
            if "valueFrom" in variable:
                value = self._value(variable["valueFrom"], pod_name)
            for name, known in environ.items():
                value = value.replace(f"$({name})", known)
            environ[variable["name"]] = value
        return environ

    def _value(self, source: Object, pod_name: str) -> str:
        if "secretKeyRef" in source:
            secret = [
                each for each in self.kind("Secret") if each["metadata"]["name"] == source["secretKeyRef"]["name"]
            ]
            # A Secret that somebody else keeps.
            if not secret:
                return "of-another-secret"
            return base64.b64decode(secret[0]["data"][source["secretKeyRef"]["key"]]).decode()
        field = source["fieldRef"]["fieldPath"]
        return {
            "metadata.name": pod_name,
            "status.podIP": "127.0.0.1",
            "metadata.labels['apps.kubernetes.io/pod-index']": pod_name.rpartition("-")[2],
        }[field]


@lru_cache(maxsize=64)
def _template(release: str, *arguments: str) -> str:
    done = helm("template", release, str(CHART), "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*arguments: str, release: str = RELEASE) -> Rendering:
    """What `helm template` prints with these arguments."""
    return Rendering(_template(release, *arguments))


def refusal(*arguments: str) -> str:
    """The line with which Helm refuses these arguments."""
    done = helm("template", RELEASE, str(CHART), *arguments)
    assert done.returncode != 0, "it was taken"
    return done.stderr.strip()
