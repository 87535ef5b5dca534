"""How values are printed: numbers with all of their digits, texts as texts, names that Kubernetes takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import kubernetes_validate
import pytest
import yaml

from telemetry_site.options import BY_NAME
from tests.helm.chart import CHART, WAYS, Rendering, render
from tests.helm.test_schemas import VERSIONS

OPERATOR = "monitoring.coreos.com/v1"


def settings_of(rendering: Rendering, component: str, pod: str = "t-1") -> dict[str, str]:
    return rendering.environment(rendering.container(component, component), pod)


def written(tmp_path: Path, values: Any) -> tuple[str, str]:
    text = values if isinstance(values, str) else json.dumps(values)
    path = tmp_path / f"values-{crc32(text.encode())}.yaml"  # renderings are remembered by their arguments
    path.write_text(text)
    return "-f", str(path)


def is_valid(rendering: Rendering) -> None:
    for each in rendering.objects:
        if each["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("53687091200", "53687091200"),
        ("1000000", "1000000"),
        ("-20000000", "-20000000"),
        ("1.5e7", "15000000"),
        ("0", "0"),
        ("0.5", "0.5"),
        ("2500000.25", "2500000.25"),
        ('"7000000"', "7000000"),
        ('"7.0e6"', "7.0e6"),
        ("10GiB", "10GiB"),
        ("true", "true"),
        ("false", "false"),
        ('""', ""),
    ],
)
def test_a_setting_is_printed_as_it_was_written(tmp_path: Path, value: str, text: str) -> None:
    file = written(
        tmp_path, f"settings: {{VERBOSITY: {value}}}\ncollector: {{settings: {{FLUSH_INTERVAL: {value}}}}}\n"
    )
    rendering = render(*file)
    assert settings_of(rendering, "collector")["FLUSH_INTERVAL"] == text
    assert rendering.one("ConfigMap", "tele")["data"]["VERBOSITY"] == text


@pytest.mark.parametrize("option", ["--set", "--set-string", "--set-json"])
@pytest.mark.parametrize("value", ["85899345920", "3000000", "1"])
def test_it_is_the_same_on_the_command_line(option: str, value: str) -> None:
    rendering = render(option, f"mqServer.settings.RETENTION_BYTES={value}")
    assert settings_of(rendering, "mq-server")["RETENTION_BYTES"] == value


# Every value of the chart that is a number, at a size that Go would print with an exponent.
BIG = 21000000
MANY: dict[str, Any] = {
    "settings": {"MAX_PAGE_SIZE": BIG},
    "storage": {"retentionPeriod": 0},
    "mqServer": {
        "settings": {"SEGMENT_BYTES": BIG},
        "terminationGracePeriodSeconds": BIG,
        "podLabels": {"number": BIG, "yes": True},
        "podAnnotations": {"number": BIG, "half": 0.5},
        "nodeSelector": {"number": BIG},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": BIG}],
        "extraEnv": [{"name": "NUMBER", "value": BIG}, {"name": "WORD", "value": "w"}],
        "persistence": {"size": 1024 * BIG},
        "resources": {"requests": {"cpu": 0.5, "memory": 64 * BIG}, "limits": {"memory": 64 * BIG}},
    },
    "collector": {"replicaCount": BIG, "persistence": {"enabled": False, "size": 1024 * BIG}},
    "streamer": {"replicaCount": BIG, "extraEnv": [{"name": "NUMBER", "value": 12345678}]},
    "api": {
        "autoscaling": {
            "enabled": True, "minReplicas": BIG, "maxReplicas": BIG + 1, "targetCPUUtilizationPercentage": BIG,
        },
        "service": {"type": "NodePort", "nodePort": 30080, "annotations": {"number": BIG}},
        "ingress": {"enabled": True, "hosts": ["a.example.com"], "annotations": {"body-size": BIG, "on": True}},
    },
    "migrate": {"activeDeadlineSeconds": BIG, "ttlSecondsAfterFinished": BIG},
    "podSecurityContext": {"runAsUser": 1000850000, "fsGroup": 1000850000},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"number": BIG}},
        "prometheusRule": {"enabled": True, "labels": {"number": BIG}},
    },
}  # fmt: skip


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_no_number_anywhere_has_an_exponent(tmp_path: Path) -> None:
    once = ("--set", "streamer.data.loop=false,streamer.data.existingConfigMap=c")
    for more in ((), once, ("--set", "api.autoscaling.enabled=false,api.replicaCount=3000000")):
        rendering = render(*written(tmp_path, MANY), *more)
        is_valid(rendering)
        for each in leaves(rendering.objects):
            assert not isinstance(each, float) or each == 0.5, each
            assert not re.fullmatch(r"[\d.]+e\+?\d+", str(each)), each
    broker = rendering.one("StatefulSet", "tele-mq-server")["spec"]
    template = broker["template"]
    assert template["metadata"]["labels"]["number"] == template["metadata"]["annotations"]["number"] == str(BIG)
    assert template["spec"]["terminationGracePeriodSeconds"] == BIG
    assert broker["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == str(1024 * BIG)
    assert rendering.one("Deployment", "tele-api")["spec"]["replicas"] == 3_000_000
    assert rendering.one("ConfigMap", "tele")["data"]["RETENTION_PERIOD"] == "0"


def test_a_tag_of_digits_alone_is_a_tag(tmp_path: Path) -> None:
    for arguments in (("--set", "global.imageTag=20261128"), written(tmp_path, {"global": {"imageTag": 20261128}})):
        assert {each.spec["image"].rpartition(":")[2] for each in render(*arguments).ours()} == {"20261128"}
    rendering = render(*written(tmp_path, {"postgresql": {"image": {"tag": 17000000}}}))
    assert rendering.container("postgresql", "postgresql").spec["image"].endswith(":17000000")


def test_the_numbers_are_what_the_settings_take(tmp_path: Path) -> None:
    values = {
        "mqServer": {"settings": {"RETENTION_BYTES": 32212254720, "SEGMENT_BYTES": 134217728, "MAX_CONNECTIONS": 1000000}},
        "streamer": {"settings": {"SPOOL_BYTES": 2147483648, "RATE": 0.25, "SIM_SEED": 87654321, "FOLLOW": False}},
        "settings": {"VERBOSITY": 2},
    }  # fmt: skip
    rendering = render(*written(tmp_path, values))
    broker, streamer = settings_of(rendering, "mq-server"), settings_of(rendering, "streamer")
    assert BY_NAME["RETENTION_BYTES"].read(broker) == 30 << 30
    assert BY_NAME["MAX_CONNECTIONS"].read(broker) == 1_000_000
    assert BY_NAME["SPOOL_BYTES"].read(streamer) == 2 << 30
    assert BY_NAME["RATE"].read(streamer) == 0.25
    assert BY_NAME["SIM_SEED"].read(streamer) == 87654321


# Names.


@pytest.mark.parametrize(
    "release", ["a.b", "1tele", "123", "1e5", "true", "null", "a" * 53, f"{'ab-' * 13}x.y", "0.0.0", "x"]
)
def test_any_release_name_makes_names_that_kubernetes_takes(release: str) -> None:
    for way in ("everything", "own-ca", "sqlite", "capture-once"):
        rendering = render(*WAYS[way], release=release)
        is_valid(rendering)
        for each in rendering.objects:
            name = each["metadata"]["name"]
            limit = {"StatefulSet": 52, "Job": 58}.get(each["kind"], 63)
            assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name), name
            assert len(name) <= limit, name
            for text in [*each["metadata"]["labels"].values(), each["metadata"]["namespace"]]:
                assert isinstance(text, str)
                assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", text), text
                assert len(text) <= 63
        for container in rendering.ours():
            for name, value in rendering.environment(container, "t-streamer-1").items():
                if name in BY_NAME and value != "of-another-secret":
                    BY_NAME[name].read({name: value})


def test_two_releases_have_two_names() -> None:
    names = [
        {each["metadata"]["name"] for each in render(release=release).objects} for release in ("a.b", "a-b", "tele")
    ]
    assert not names[0] & names[1]
    # A name that needs no change has none: an upgrade finds its volumes.
    assert "tele" in names[2]


def test_a_long_base_name_is_cut() -> None:
    rendering = render("--set", f"fullnameOverride={'x' * 63}")
    assert max(len(each["metadata"]["name"]) for each in rendering.objects) <= 63


# Addresses.


@pytest.mark.parametrize(
    "password", ["two words", "a+b", "p/q?r#s@t:u%20v&w=x", "'\"\\$(A)`", "grün", "percent%", "-", "[::1]", " lead"]
)
def test_any_password_of_the_charts_postgresql_reaches_its_clients(tmp_path: Path, password: str) -> None:
    rendering = render(*written(tmp_path, {"postgresql": {"password": password}}))
    url = settings_of(rendering, "api")["DATABASE_URL"]
    found = re.fullmatch(r"postgres://telemetry:([^:@/+ ]+)@tele-postgresql:5432/telemetry", url)
    assert found is not None, url
    assert unquote(found[1]) == password
    from telemetry_site.database import database_config

    assert database_config(url, tmp_path)["PASSWORD"] == password


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        ("{*.example.com}", None, ".example.com"),
        ("{*.example.com,gpus.example.com}", "http://gpus.example.com", ".example.com"),
        ("{gpus.example.com,*.example.net}", "http://gpus.example.com", ".example.net"),
    ],
)
def test_a_wildcard_host_is_answered_and_is_no_public_address(hosts: str, url: str | None, allowed: str) -> None:
    rendering = render("--set", f"api.ingress.enabled=true,api.ingress.hosts={hosts}")
    environ = settings_of(rendering, "api")
    assert environ.get("PUBLIC_URL") == url
    assert environ["TRUSTED_PROXIES"] == "1"
    assert allowed in environ["ALLOWED_HOSTS"].split(",")
    assert "*" not in environ["ALLOWED_HOSTS"]


def test_further_hosts_may_be_wildcards_and_all() -> None:
    environ = settings_of(render("--set", "api.allowedHosts={*.example.org,*,gpus}"), "api")
    assert environ["ALLOWED_HOSTS"].split(",")[-3:] == [".example.org", "*", "gpus"]


def test_an_address_in_brackets_is_an_address() -> None:
    for host in ("::", "[::]"):
        rendering = render("--set", f"listenHost={host}")
        assert settings_of(rendering, "api")["HOST"] == "::"
        assert settings_of(rendering, "mq-server")["TCP_ADDR"] == "[::]:9000"


def test_a_setting_for_all_wins_over_the_charts_own() -> None:
    rendering = render("--set", "settings.API_AUTH_REQUIRED=false")
    assert settings_of(rendering, "api")["API_AUTH_REQUIRED"] == "false"


# Certificates of one's own.


def mounted(rendering: Rendering, component: str) -> set[str]:
    return {
        f"{'init ' if each.init else ''}{each.spec['name']}"
        for each in rendering.containers()
        if each.component == component
        and any(mount["mountPath"] == "/etc/company-ca" for mount in each.spec["volumeMounts"])
    }


def test_the_example_mounts_the_ca_wherever_a_setting_names_it() -> None:
    rendering = render(*WAYS["own-ca"])
    assert mounted(rendering, "collector") == {"init wait-for-migrations", "collector"}
    assert mounted(rendering, "api") == {"init wait-for-migrations", "api"}
    assert mounted(rendering, "watch") == {"init wait-for-migrations", "watch"}
    assert mounted(rendering, "migrate") == {"migrate"}
    assert mounted(rendering, "streamer") == {"streamer"}
    for container in rendering.ours():
        if container.component in {"test", "migrate", "mq-server"} or container.init:
            continue
        mounts = [mount["mountPath"] for mount in container.spec["volumeMounts"]]
        paths = {name: value for name, value in rendering.environment(container, "t-1").items() if name.endswith("_CA")}
        assert paths
        for path in paths.values():
            assert any(path.startswith(f"{mount}/") for mount in mounts), path
    sample = re.search(r"url='(postgres://\S+)'", (CHART / "values-own-ca.yaml").read_text())
    assert sample is not None
    assert "sslrootcert=/etc/company-ca/ca.crt" in sample[1]


@pytest.mark.parametrize(
    ("key", "component", "way"),
    [
        ("mqServer", "mq-server", "default"),
        ("collector", "collector", "default"),
        ("collector", "collector", "sqlite"),
        ("watch", "watch", "default"),
        ("watch", "watch", "memory"),
        ("streamer", "streamer", "default"),
        ("streamer", "streamer", "capture-once"),
        ("api", "api", "default"),
        ("api", "api", "sqlite"),
        ("migrate", "migrate", "default"),
        ("migrate", "migrate", "upgrade"),
        ("influxdb", "influxdb", "default"),
        ("postgresql", "postgresql", "default"),
    ],
)
def test_each_component_takes_volumes_and_environment(tmp_path: Path, key: str, component: str, way: str) -> None:
    extra = {
        "extraVolumes": [{"name": "mine", "secret": {"secretName": "s"}}],
        "extraVolumeMounts": [{"name": "mine", "mountPath": "/mine", "readOnly": True}],
        "extraEnv": [{"name": "MINE", "value": "1"}],
    }
    rendering = render(*WAYS[way], *written(tmp_path, {key: extra}))
    is_valid(rendering)
    containers = [each for each in rendering.containers() if each.spec["name"] == component]
    containers += [each for each in rendering.containers() if each.init and each.component == component]
    assert containers
    for container in containers:
        assert {"name": "mine", "mountPath": "/mine", "readOnly": True} in container.spec["volumeMounts"], container
        assert {"name": "MINE", "value": "1"} in container.spec["env"], container
        assert container.pod["volumes"].count({"name": "mine", "secret": {"secretName": "s"}}) == 1


def test_two_components_of_one_pod_may_name_one_volume(tmp_path: Path) -> None:
    extra = {"extraVolumes": [{"name": "mine", "configMap": {"name": "c"}}]}
    rendering = render(*WAYS["sqlite"], *written(tmp_path, {"api": extra, "collector": extra}))
    names = [volume["name"] for volume in rendering.container("api", "api").pod["volumes"]]
    assert names.count("mine") == 1


# Below a path.


def test_below_a_path_the_public_address_has_it_and_probes_do_not() -> None:
    rendering = render(*WAYS["sub-path"], "--set", "metrics.serviceMonitor.enabled=true")
    (rule,) = rendering.one("Ingress", "tele-api")["spec"]["rules"]
    assert (rule["http"]["paths"][0]["path"], rule["http"]["paths"][0]["pathType"]) == ("/gpu", "Prefix")
    assert settings_of(rendering, "api")["PUBLIC_URL"] == "http://gpus.example.com/gpu"
    # Both ask a pod itself, past the ingress.
    assert rendering.container("api", "api").spec["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert rendering.one("ServiceMonitor", "tele-api")["spec"]["endpoints"][0]["path"] == "/metrics"


def test_the_values_files_are_yaml_without_surprises() -> None:
    for path in CHART.glob("values*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)
