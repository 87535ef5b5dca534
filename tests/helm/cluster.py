"""A real Kubernetes API without nodes: etcd, kube-apiserver and its controllers, and a stand-in for the kubelet that calls pods ready."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, ROOT, find_helm
from tests.ports import free_port

START_SECONDS = 120.0
TOKEN = "token-of-the-administrator"


def find_kubernetes() -> Path:
    """Where the programs are; without them the test is skipped, or fails where REQUIRE_KUBERNETES is 1."""
    found = subprocess.run([str(ROOT / "ci" / "kubernetes.sh"), "--find"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return Path(found.stdout.strip())
    message = "needs a Kubernetes API: run make kubernetes (some ten minutes, once)"
    if os.environ.get("REQUIRE_KUBERNETES") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass
class Cluster:
    """Start it, use it, stop it."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        programs = find_kubernetes()
        self.folder.mkdir()
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        etcd, peers, self.port = free_port(), free_port(), free_port()
        here = f"http://127.0.0.1:{peers}"
        self._run(
            programs / "etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls={here}",
            f"--initial-advertise-peer-urls={here}", f"--initial-cluster=default={here}",
        )  # fmt: skip
        self._run(
            programs / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={self.port}",
            "--bind-address=127.0.0.1", f"--cert-dir={self.folder}/certs", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/16",
        )  # fmt: skip
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        self._wait_ready()
        self._run(
            programs / "kube-controller-manager", f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={key}", "--leader-elect=false", "--secure-port=0",
            f"--cert-dir={self.folder}/manager-certs",
        )  # fmt: skip

    def know_operator(self) -> None:
        """Take the kinds of Prometheus' operator."""
        if self._answers("/apis/monitoring.coreos.com/v1"):
            return
        for path in sorted(find_kubernetes().glob("monitoring.coreos.com_*.yaml")):
            definition = yaml.load(path.read_text(), yaml.CSafeLoader)
            self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            name = definition["spec"]["names"]["plural"]
            deadline = time.monotonic() + START_SECONDS
            while not self._answers(f"/apis/monitoring.coreos.com/v1/{name}"):
                assert time.monotonic() < deadline, f"{name} is not served"
                time.sleep(0.1)

    def _answers(self, path: str) -> bool:
        try:
            self.ask("GET", path)
        except urllib.error.HTTPError:
            return False
        return True

    def stop(self) -> None:
        """End everything."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def ask(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """Ask the API; raises urllib's HTTPError."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
        )
        trust = ssl._create_unverified_context()  # its certificate is of its own making
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return json.loads(answer.read())

    def namespace(self, name: str) -> None:
        """A namespace that takes only pods that meet the restricted standard."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm on this cluster."""
        return subprocess.run(
            [find_helm(), *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def install(self, namespace: str, *arguments: str, verb: str = "install") -> str:
        """Install the chart, or upgrade it, and wait until it says that all is ready; returns what Helm said."""
        with Kubelet(self, namespace):
            done = self.helm(
                verb, "tele", str(CHART), "--namespace", namespace, "--wait", "--timeout", "120s", *arguments
            )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout

    def _run(self, program: Path, *arguments: str) -> None:
        with (self.folder / f"{program.name}.log").open("ab") as log:
            self.processes.append(subprocess.Popen([str(program), *arguments], stdout=log, stderr=log, cwd=self.folder))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for process in self.processes:
                assert process.poll() is None, "a part of the cluster ended: see its log"
            try:
                self.ask("GET", "/api/v1/namespaces/default")
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the API did not become ready")


class Kubelet:
    """What nodes do, as far as the API sees it: pods of Jobs succeed, others become ready, once what they wait for is done; claims get a volume,
    load balancers an address.

    ``events`` is what became of which pod, in order.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.events: list[str] = []
        self._cluster = cluster
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._services = f"/api/v1/namespaces/{namespace}/services"
        self._claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        provided: set[str] = set()
        while not self._stop.wait(0.2):
            for claim in self._cluster.ask("GET", self._claims)["items"]:
                uid = claim["metadata"]["uid"]
                if claim["status"]["phase"] == "Pending" and uid not in provided:
                    provided.add(uid)
                    self._provide(claim)
            for service in self._cluster.ask("GET", self._services)["items"]:
                if service["spec"]["type"] == "LoadBalancer" and not service["status"]["loadBalancer"]:
                    address = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
                    self._patch(f"{self._services}/{service['metadata']['name']}/status", address)
            pods = self._cluster.ask("GET", self._pods)["items"]
            migrated = "migrate succeeded" in self.events
            for pod in pods:
                component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")
                if pod["status"].get("phase", "Pending") != "Pending":
                    continue
                waits = any(each["name"] == "wait-for-migrations" for each in pod["spec"].get("initContainers", ()))
                if waits and not migrated:
                    continue
                self._tell(pod, "Succeeded" if pod["spec"]["restartPolicy"] != "Always" else "Running")
                done = "succeeded" if pod["spec"]["restartPolicy"] != "Always" else "ready"
                self.events.append(f"{component} {done}")

    def _provide(self, claim: dict[str, Any]) -> None:
        spec = claim["spec"]
        volume = {
            "metadata": {"name": f"volume-{claim['metadata']['uid']}"},
            "spec": {
                "capacity": spec["resources"]["requests"],
                "accessModes": spec["accessModes"],
                "storageClassName": spec.get("storageClassName", ""),
                "hostPath": {"path": "/nowhere"},
                "claimRef": {key: claim["metadata"][key] for key in ("name", "namespace", "uid")},
            },
        }
        self._cluster.ask("POST", "/api/v1/persistentvolumes", volume)

    def _tell(self, pod: dict[str, Any], phase: str) -> None:
        state = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
        status = {
            "phase": phase,
            "conditions": [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")],
            "containerStatuses": [
                {
                    "name": each["name"], "image": each["image"], "imageID": "", "restartCount": 0,
                    "ready": phase == "Running", "started": phase == "Running", "state": state,
                }
                for each in pod["spec"]["containers"]
            ],
        }  # fmt: skip
        self._patch(f"{self._pods}/{pod['metadata']['name']}/status", {"status": status})

    def _patch(self, path: str, body: object) -> None:
        try:
            self._cluster.ask("PATCH", path, body, kind="application/strategic-merge-patch+json")
        except urllib.error.HTTPError as error:
            if error.code != 404:  # gone meanwhile
                raise
