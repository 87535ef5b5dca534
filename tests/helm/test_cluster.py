"""The chart on a real Kubernetes API, in namespaces that let in only what meets the restricted standard."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, ROOT, WAYS, render
from tests.helm.cluster import Cluster, Kubelet, find_kubernetes
from tests.ingest.processes import wait_until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    find_kubernetes()
    cluster = Cluster(tmp_path_factory.mktemp("kubernetes") / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def data_of(cluster: Cluster, namespace: str) -> dict[str, str]:
    secret = cluster.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/tele")
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def generations(cluster: Cluster, namespace: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in ("deployments", "statefulsets"):
        for each in cluster.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/{kind}")["items"]:
            found[each["metadata"]["name"]] = each["metadata"]["generation"]
    return found


@pytest.mark.parametrize("way", [way for way in WAYS if way not in {"upgrade", "everything", "production"}])
def test_it_is_installed_and_becomes_ready(cluster: Cluster, way: str) -> None:
    namespace = f"way-{way}"
    cluster.namespace(namespace)
    said = cluster.install(namespace, *WAYS[way])
    assert "STATUS: deployed" in said
    with Kubelet(cluster, namespace):
        tested = cluster.helm("test", "tele", "--namespace", namespace, "--timeout", "60s")
    assert "Phase:          Succeeded" in tested.stdout, tested.stderr
    gone = cluster.helm("uninstall", "tele", "--namespace", namespace)
    assert gone.returncode == 0, gone.stderr


@pytest.mark.parametrize("way", ["everything", "production"])
def test_with_the_kinds_of_prometheus_operator_every_object_is_taken(cluster: Cluster, way: str) -> None:
    cluster.know_operator()
    namespace = f"way-{way}"
    cluster.namespace(namespace)
    assert "STATUS: deployed" in cluster.install(namespace, *WAYS[way])
    monitors = cluster.ask("GET", f"/apis/monitoring.coreos.com/v1/namespaces/{namespace}/servicemonitors")["items"]
    assert len(monitors) == 4
    # A field that the operator does not know would have been dropped.
    rendered = {each["metadata"]["name"]: each["spec"] for each in render(*WAYS[way]).kind("ServiceMonitor")}
    for monitor in monitors:
        told, kept = rendered[monitor["metadata"]["name"]]["endpoints"][0], monitor["spec"]["endpoints"][0]
        assert kept == told


def test_the_influxdb_for_kind_is_taken(cluster: Cluster) -> None:
    namespace = "kind-influxdb"
    cluster.namespace(namespace)
    service, workload = yaml.safe_load_all((ROOT / "deploy" / "kind" / "influxdb.yaml").read_text())
    cluster.ask("POST", f"/api/v1/namespaces/{namespace}/services", service)
    cluster.ask("POST", f"/apis/apps/v1/namespaces/{namespace}/statefulsets", workload)
    with Kubelet(cluster, namespace) as kubelet:
        wait_until(lambda: bool(kubelet.events), "a pod that the namespace lets in")


def test_an_upgrade_keeps_the_secrets_rolls_nothing_and_migrates_first(cluster: Cluster) -> None:
    namespace = "upgrades"
    cluster.namespace(namespace)
    cluster.install(namespace)
    secrets, before = data_of(cluster, namespace), generations(cluster, namespace)
    with Kubelet(cluster, namespace) as kubelet:
        done = cluster.helm("upgrade", "tele", str(CHART), "--namespace", namespace, "--wait", "--timeout", "120s")
    assert done.returncode == 0, done.stderr
    assert data_of(cluster, namespace) == secrets
    assert generations(cluster, namespace) == before
    assert kubelet.events == ["migrate succeeded"]

    # A setting of all rolls all that read it, a setting of one rolls that one.
    cluster.install(namespace, "--set", "mqServer.settings.FSYNC=interval", verb="upgrade")
    after = generations(cluster, namespace)
    assert {name for name in after if after[name] != before[name]} == {"tele-mq-server"}
    cluster.install(namespace, "--reset-then-reuse-values", "--set", "storage.retentionPeriod=7d", verb="upgrade")
    last = generations(cluster, namespace)
    rolled = {name for name in last if last[name] != after[name]}
    assert rolled >= {"tele-api", "tele-collector", "tele-streamer", "tele-watch", "tele-mq-server"}
    assert "tele-postgresql" not in rolled

    # A setting that was set for a while, and is taken back (docs/operations.md).
    told = []
    for value in ("latest", ""):
        option = f"collector.settings.START_OFFSET={value}"
        cluster.install(namespace, "--reset-then-reuse-values", "--set", option, verb="upgrade")
        collector = cluster.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/statefulsets/tele-collector")
        environ = collector["spec"]["template"]["spec"]["containers"][0]["env"]
        told.append([each.get("value", "") for each in environ if each["name"] == "START_OFFSET"])
    assert told == [["latest"], [""]]


def test_a_streamers_pod_knows_its_number(cluster: Cluster) -> None:
    namespace = "shards"
    cluster.namespace(namespace)
    cluster.install(namespace, "--set", "streamer.replicaCount=3")
    pods = cluster.ask("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    numbers: dict[str, Any] = {
        pod["metadata"]["name"]: pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"]
        for pod in pods
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "streamer"
    }
    assert numbers == {"tele-streamer-1": "1", "tele-streamer-2": "2", "tele-streamer-3": "3"}


def test_an_own_postgresql_that_comes_later_is_migrated_beside_it(cluster: Cluster) -> None:
    namespace = "later"
    cluster.namespace(namespace)
    cluster.install(namespace, "--set", "database.url=postgres://u:p@elsewhere:5432/x")
    cluster.install(namespace, "--set", "database.url=", verb="upgrade")
    assert "tele-postgresql" in generations(cluster, namespace)
