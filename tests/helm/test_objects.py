"""What the rendered objects promise: security, probes, names, ports, time to stop."""

from __future__ import annotations

import base64
import re
import runpy
import tomllib
from typing import Any

import pytest
import yaml

from broker.server.state import ServerConfig
from health.watch import watcher
from ingest.collector import collector
from ingest.streamer import live, sender
from telemetry_site.options import BY_NAME, options_for
from tests.helm.chart import CHART, ROOT, WAYS, Container, Rendering, render

# Set for other variables to be made of; no setting of ours.
HELPERS = {"POD_INDEX", "POD_IP"}
COMMANDS = {"runbroker", "collect", "stream", "watch", "serve", "migrate", "waitmigrated"}


@pytest.fixture(params=WAYS)
def rendering(request: pytest.FixtureRequest) -> Rendering:
    return render(*WAYS[request.param])


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def command_of(container: Container) -> str:
    """The manage.py command that it runs; nothing for a container that runs none of them."""
    words = " ".join([*container.spec.get("command", ()), *container.spec.get("args", ())])
    found = re.findall(r"manage\.py (\w+)", words)
    return found[-1] if found else ""


def test_every_pod_meets_the_restricted_standard(rendering: Rendering) -> None:
    for each, _, pod in rendering.pods():
        name = f"{each['kind']}/{each['metadata']['name']}"
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
        assert kinds <= {"emptyDir", "configMap", "secret", "projected", "persistentVolumeClaim"}, name


def test_no_container_can_write_to_its_root_or_gain_rights(rendering: Rendering) -> None:
    for container in rendering.containers():
        security = container.spec["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container
        # What a process must be able to write to.
        mounted = {mount["mountPath"]: mount for mount in container.spec["volumeMounts"]}
        assert "/tmp" in mounted, container
        if container in rendering.ours() and command_of(container):
            state = rendering.environment(container).get("STATE_DIR", "")
            assert state in mounted, container


def test_every_container_asks_for_what_it_needs_and_has_a_memory_limit(rendering: Rendering) -> None:
    for container in rendering.containers():
        resources = container.spec["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), container
        assert "memory" in resources["limits"], container


def test_every_mount_is_of_a_volume(rendering: Rendering) -> None:
    for each, _, pod in rendering.pods():
        claims = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())}
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes))
        assert not claims & set(volumes)
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= claims | set(volumes), each["metadata"]


def test_only_settings_of_the_table_are_set_and_each_where_it_is_read(rendering: Rendering) -> None:
    for container in rendering.ours():
        command = command_of(container)
        if not command:
            continue
        assert command in COMMANDS, container
        names = {variable["name"] for variable in container.spec.get("env", ())} - HELPERS - {"TZ"}
        assert names <= set(BY_NAME), container
        if command not in {"migrate", "waitmigrated"}:
            # POD_INDEX and the like aside, what a container alone is told is a setting of its command.
            assert names <= {option.name for option in options_for(command)} | {"SECRET_KEY", "DATABASE_URL"}, container
    for config in rendering.kind("ConfigMap"):
        assert config["data"].keys() <= set(BY_NAME)
        assert not [name for name in config["data"] if BY_NAME[name].secret]


def test_every_value_is_one_that_the_setting_takes(rendering: Rendering) -> None:
    for container in rendering.ours():
        for name, value in rendering.environment(container, "tele-streamer-1").items():
            if name in BY_NAME and value != "of-another-secret":
                BY_NAME[name].read({name: value})


def test_every_command_is_one_of_manage_py(rendering: Rendering) -> None:
    from django.core.management import get_commands

    for container in rendering.ours():
        if container.component != "test":
            assert command_of(container) in {*get_commands(), "migrate"}, container


def test_latest_is_only_in_the_values_for_kind() -> None:
    for way, arguments in WAYS.items():
        tags = {each.spec["image"].rpartition(":")[2] for each in render(*arguments).ours()}
        assert tags == ({"latest"} if way == "kind" else {chart_yaml()["appVersion"]}), way


def chart_yaml() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return loaded


def test_the_charts_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart_yaml()["version"], chart_yaml()["appVersion"]) == (version, version)


@pytest.mark.parametrize("registry", ["registry.example.com/team", "registry.example.com/team/"])
def test_a_registry_is_put_before_our_images(registry: str) -> None:
    images = {each.spec["image"] for each in render("--set", f"global.imageRegistry={registry}").ours()}
    services = ("api", "collector", "mq-server", "streamer", "watch")
    assert images == {
        f"registry.example.com/team/gpu-telemetry-pipeline/{service}:{chart_yaml()['appVersion']}"
        for service in services
    }


def test_a_tag_of_one_image_wins_over_the_common_one() -> None:
    rendering = render("--set", "global.imageTag=2.0,api.image.tag=2.1")
    assert rendering.container("api", "api").spec["image"] == "gpu-telemetry-pipeline/api:2.1"
    assert rendering.container("mq-server", "mq-server").spec["image"] == "gpu-telemetry-pipeline/mq-server:2.0"


# Who finds whom.


def test_selectors_match_the_labels_of_pods(rendering: Rendering) -> None:
    pods = [metadata["labels"] for _, metadata, _ in rendering.pods()]
    for each in rendering.objects:
        match each["kind"]:
            case "Deployment" | "StatefulSet":
                labels = each["spec"]["template"]["metadata"]["labels"]
                assert selects(each["spec"]["selector"]["matchLabels"], labels)
            case "Service":
                assert [1 for labels in pods if selects(each["spec"]["selector"], labels)] == [1], each["metadata"]
            case "PodDisruptionBudget":
                assert any(selects(each["spec"]["selector"]["matchLabels"], labels) for labels in pods)
            case "NetworkPolicy":
                assert any(selects(each["spec"]["podSelector"]["matchLabels"], labels) for labels in pods)
            case "ServiceMonitor":
                services = [service["metadata"]["labels"] for service in rendering.kind("Service")]
                assert sum(selects(each["spec"]["selector"]["matchLabels"], labels) for labels in services) == 1


def test_the_components_are_named_as_they_are_known() -> None:
    components = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in render().objects
        if each["kind"] in {"Deployment", "StatefulSet"}
    }
    assert components == {"api", "collector", "streamer", "watch", "mq-server", "postgresql", "influxdb"}


def test_the_services_are_named_after_the_release() -> None:
    rendering = render()
    assert [port["port"] for port in rendering.one("Service", "tele-api")["spec"]["ports"]] == [8080]
    assert [port["port"] for port in rendering.one("Service", "tele-mq-server")["spec"]["ports"]] == [9000, 9001]


def test_a_services_port_is_a_port_of_its_pods(rendering: Rendering) -> None:
    for service in rendering.kind("Service"):
        ports = {
            port["name"]: port["containerPort"]
            for _, metadata, pod in rendering.pods()
            if selects(service["spec"]["selector"], metadata["labels"])
            for container in pod["containers"]
            for port in container.get("ports", ())
        }
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], service["metadata"]["name"]


def test_each_process_listens_where_its_ports_and_probes_say(rendering: Rendering) -> None:
    for container in rendering.ours():
        ports = {port["name"]: port["containerPort"] for port in container.spec.get("ports", ())}
        environ = rendering.environment(container)
        listens = {
            "runbroker": lambda e: {
                "tcp": BY_NAME["TCP_ADDR"].read(e).port,
                "http": BY_NAME["HTTP_ADDR"].read(e).port,
            },
            "serve": lambda e: {"http": BY_NAME["PORT"].read(e)},
            "collect": lambda e: {"metrics": BY_NAME["METRICS_ADDR"].read(e).port},
            "stream": lambda e: {"metrics": BY_NAME["METRICS_ADDR"].read(e).port},
            "watch": lambda e: {"watch-metrics": BY_NAME["METRICS_ADDR"].read(e).port},
        }.get(command_of(container), lambda e: {})(environ)
        assert ports == listens, container


def test_clients_look_for_the_broker_where_its_service_is(rendering: Rendering) -> None:
    environ = rendering.one("ConfigMap", "tele")["data"]
    service = rendering.one("Service", environ["MQ_HOST"])
    assert int(environ["MQ_PORT"]) in {port["port"] for port in service["spec"]["ports"]}


def test_the_stores_are_where_the_settings_say() -> None:
    rendering = render()
    environ = rendering.environment(rendering.container("collector", "collector"))
    influx = re.fullmatch(r"http://([\w-]+):(\d+)", environ["INFLUXDB_URL"])
    assert influx is not None
    assert rendering.one("Service", influx[1])["spec"]["ports"][0]["port"] == int(influx[2])
    database = re.fullmatch(r"postgres://telemetry:(\w+)@([\w-]+):(\d+)/telemetry", environ["DATABASE_URL"])
    assert database is not None
    assert rendering.one("Service", database[2])["spec"]["ports"][0]["port"] == int(database[3])
    server = rendering.container("postgresql", "postgresql")
    assert {variable["name"]: variable["value"] for variable in server.spec["env"]}["POSTGRES_DB"] == "telemetry"


def test_the_database_of_the_chart_has_the_password_that_clients_say() -> None:
    rendering = render()
    secret = rendering.one("Secret", "tele")
    environ = rendering.environment(rendering.container("api", "api"))
    password = base64.b64decode(secret["data"]["POSTGRES_PASSWORD"]).decode()
    assert f":{password}@" in environ["DATABASE_URL"]


# Probes.


def test_every_service_has_probes_on_paths_that_it_answers(rendering: Rendering) -> None:
    paths = {
        "runbroker": {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/health"},
        "collect": {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"},
        "stream": {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"},
        "watch": {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"},
        "serve": {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"},
    }
    probed = set()
    for container in rendering.ours():
        command = command_of(container)
        if command not in paths or container.init:
            continue
        probed.add(command)
        names = {port["name"] for port in container.spec["ports"]}
        for probe, path in paths[command].items():
            asked = container.spec[probe]["httpGet"]
            assert asked["path"] == path, container
            assert asked["port"] in names, container
    assert probed >= {"runbroker", "serve"}


def test_the_broker_is_not_restarted_for_a_full_disk() -> None:
    broker = render().container("mq-server", "mq-server").spec
    assert broker["livenessProbe"]["httpGet"]["path"] != broker["readinessProbe"]["httpGet"]["path"]
    # And is found while it is not ready: publishers are told why, subscribers read on.
    assert render().one("Service", "tele-mq-server")["spec"]["publishNotReadyAddresses"] is True


# Stopping.


def drain_seconds(command: str) -> float:
    """The longest that the code takes to stop."""
    config = ServerConfig()
    return {
        "runbroker": config.answer_s + config.flush_s + 1.0,
        "collect": collector.DRAIN_SECONDS + 1.0,
        "stream": sender.DRAIN_SECONDS + live.FINISH_SECONDS + 1.0,
        "watch": watcher.DRAIN_SECONDS + 1.0,
        "serve": float(runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]),
    }[command]


def test_there_is_more_time_to_stop_than_a_service_takes(rendering: Rendering) -> None:
    seen = set()
    for container in rendering.ours():
        command = command_of(container)
        if command in {"", "migrate", "waitmigrated"}:
            continue
        seen.add(command)
        hook = container.spec.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert hook[0] == "sleep"
        needed = int(hook[1]) + drain_seconds(command)
        assert container.pod["terminationGracePeriodSeconds"] > needed + 5, container
    assert seen >= {"runbroker", "serve"}


def test_no_budget_keeps_a_node_from_being_drained(rendering: Rendering) -> None:
    budgets = rendering.kind("PodDisruptionBudget")
    assert budgets
    assert all(each["spec"]["maxUnavailable"] == 1 for each in budgets)


# Shares.


def test_each_streamer_takes_its_own_share() -> None:
    rendering = render("--set", "streamer.replicaCount=3")
    workload = rendering.one("StatefulSet", "tele-streamer")["spec"]
    assert (workload["replicas"], workload["ordinals"]) == (3, {"start": 1})
    container = rendering.container("streamer", "streamer")
    shards = [
        BY_NAME["SHARD"].read(rendering.environment(container, f"tele-streamer-{number}")) for number in (1, 2, 3)
    ]
    assert shards == [(0, 3), (1, 3), (2, 3)]
    assert rendering.environment(container, "tele-streamer-2")["INSTANCE_ID"] == "tele-streamer-2"


def test_each_collector_has_its_own_id() -> None:
    rendering = render("--set", "collector.replicaCount=2")
    container = rendering.container("collector", "collector")
    assert rendering.one("StatefulSet", "tele-collector")["spec"]["replicas"] == 2
    ids = [rendering.environment(container, f"tele-collector-{number}")["COLLECTOR_ID"] for number in (0, 1)]
    assert ids == ["tele-collector-0", "tele-collector-1"]


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        ("streamer.data.existingConfigMap=capture", "csv"),
        ("streamer.data.existingClaim=captures", "csv"),
        ("streamer.targets={http://node-1:9400/metrics}", "dcgm"),
        ("streamer.enabled=true", "simulate"),
    ],
)
def test_the_source_follows_from_what_is_given(arguments: str, source: str) -> None:
    rendering = render("--set", arguments)
    assert rendering.environment(rendering.container("streamer", "streamer"), "t-1")["SOURCE"] == source


def test_a_capture_in_a_loop_has_a_pace() -> None:
    def speed(values: str) -> str:
        rendering = render("--set", f"streamer.data.existingConfigMap=c,{values}")
        return rendering.environment(rendering.container("streamer", "streamer"), "tele-streamer-1").get(
            "SPEED", "none"
        )

    assert speed("streamer.data.loop=true") == "1x"
    assert speed("streamer.settings.SPEED=10x") == "10x"
    assert speed("streamer.settings.RATE=500") == "none"
    assert speed("streamer.data.loop=false") == "none"


def test_every_key_of_a_data_config_map_is_read() -> None:
    rendering = render(*WAYS["capture"])
    container = rendering.container("streamer", "streamer")
    data = next(volume for volume in container.pod["volumes"] if volume["name"] == "data")
    assert data["configMap"] == {"name": "dcgm-capture"}  # no items: all of them
    assert rendering.environment(container, "tele-streamer-1")["CSV_PATH"] == "/data/*"


def test_an_autoscaler_owns_the_number_of_pods() -> None:
    rendering = render(*WAYS["everything"])
    assert "replicas" not in rendering.one("Deployment", "tele-api")["spec"]
    target = rendering.one("HorizontalPodAutoscaler", "tele-api")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "tele-api")


def test_an_ingress_leads_to_the_api_and_its_names_are_answered() -> None:
    rendering = render(*WAYS["everything"])
    rules = rendering.one("Ingress", "tele-api")["spec"]["rules"]
    assert {rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in rules} == {"tele-api"}
    allowed = rendering.environment(rendering.container("api", "api"))["ALLOWED_HOSTS"].split(",")
    assert {rule["host"] for rule in rules} | {"gpus.internal", "tele-api.fleet.svc", "127.0.0.1"} <= set(allowed)


def test_settings_in_the_values_win_over_the_charts_own() -> None:
    rendering = render(
        "--set", "streamer.data.existingConfigMap=c,streamer.settings.LOOP=false,streamer.settings.INSTANCE_ID=me"
    )
    container = rendering.container("streamer", "streamer")
    names = [variable["name"] for variable in container.spec["env"]]
    assert len(names) == len(set(names))
    environ = rendering.environment(container, "tele-streamer-1")
    assert (environ["LOOP"], environ["INSTANCE_ID"]) == ("false", "me")


def test_a_setting_is_taken_back_with_null() -> None:
    rendering = render("--set", "collector.settings.START_OFFSET=null,settings.STALE_AFTER=null")
    environ = rendering.environment(rendering.container("collector", "collector"), "tele-collector-0")
    assert not {"START_OFFSET", "STALE_AFTER"} & environ.keys()


def test_behind_an_ingress_the_api_knows_its_address_and_believes_one_proxy() -> None:
    environ = render(*WAYS["everything"]).environment(render(*WAYS["everything"]).container("api", "api"))
    assert (environ["PUBLIC_URL"], environ["TRUSTED_PROXIES"]) == ("https://gpus.example.com", "1")
    plain = render("--set", "api.ingress.enabled=true,api.ingress.hosts={gpus.internal}")
    assert plain.environment(plain.container("api", "api"))["PUBLIC_URL"] == "http://gpus.internal"


def test_nothing_is_open_to_pods_that_have_no_business_there() -> None:
    rendering = render()
    guarded = {each["metadata"]["name"] for each in rendering.kind("NetworkPolicy")}
    assert guarded == {
        f"tele-{name}" for name in ("mq-server", "api", "collector", "streamer", "watch", "postgresql", "influxdb")
    }
    peers = rendering.one("NetworkPolicy", "tele-postgresql")["spec"]["ingress"][0]["from"]
    components = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers}
    assert components == {"api", "collector", "watch", "migrate"}
    for name in ("tele-mq-server", "tele-postgresql", "tele-influxdb"):
        assert rendering.one("NetworkPolicy", name)["spec"]["egress"] == []


@pytest.mark.parametrize("way", WAYS)
def test_the_test_reaches_what_it_asks(way: str) -> None:
    peers = "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus"
    rendering = render(*WAYS[way], "--set", peers, "--set", "networkPolicy.apiFrom[0].podSelector.matchLabels.app=web")
    (test,) = rendering.kind("Pod")
    urls = dict(word.split("=", 1) for word in test["spec"]["containers"][0]["env"][0]["value"].split())
    for url in urls.values():
        found = re.fullmatch(r"https?://([\w-]+):(\d+)/\w+", url)
        assert found is not None, url
        service = rendering.one("Service", found[1])["spec"]
        (port,) = (port["targetPort"] for port in service["ports"] if port["port"] == int(found[2]))
        let_in = [
            rule
            for policy in rendering.kind("NetworkPolicy")
            if selects(policy["spec"]["podSelector"]["matchLabels"], service["selector"])
            for rule in policy["spec"]["ingress"]
            if {"port": port} in rule["ports"]
            and any(
                selects(peer.get("podSelector", {}).get("matchLabels", {}), test["metadata"]["labels"])
                for peer in rule["from"]
            )
        ]
        assert let_in, url


def test_the_optional_objects_are_off_unless_asked_for() -> None:
    optional = {"Ingress", "HorizontalPodAutoscaler", "ServiceMonitor", "PrometheusRule"}
    assert not optional & {each["kind"] for each in render().objects}
    assert optional <= {each["kind"] for each in render(*WAYS["everything"]).objects}


def test_a_service_account_has_no_rights() -> None:
    rendering = render()
    assert rendering.one("ServiceAccount", "tele")["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        each["kind"] for each in rendering.objects
    }
    assert "ServiceAccount" not in {each["kind"] for each in render("--set", "serviceAccount.create=false").objects}


def test_with_tls_only_the_broker_has_the_key() -> None:
    rendering = render(*WAYS["everything"])
    for container in rendering.ours():
        tls = [volume for volume in container.pod["volumes"] if volume["name"] == "tls"]
        keys = {item["key"] for volume in tls for item in volume["secret"]["items"]}
        if container.component == "mq-server":
            assert keys == {"tls.crt", "tls.key"}
            assert container.spec["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
        elif container.component in {"collector", "streamer", "watch", "api"}:
            assert keys == {"ca.crt"}
            if not container.init:
                assert rendering.environment(container)["BROKER_TLS_CA"] == "/etc/gpu-telemetry/tls/ca.crt"


def test_one_pod_has_api_collector_and_watch_where_a_file_cannot_be_shared() -> None:
    rendering = render(*WAYS["sqlite"])
    pod = rendering.one("Deployment", "tele-api")["spec"]
    assert [container["name"] for container in pod["template"]["spec"]["containers"]] == ["api", "collector", "watch"]
    assert [container["name"] for container in pod["template"]["spec"]["initContainers"]] == ["migrate"]
    assert pod["strategy"] == {"type": "Recreate"}
    assert rendering.one("PersistentVolumeClaim", "tele-api")
    memory = render(*WAYS["memory"]).one("Deployment", "tele-api")["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in memory] == ["api", "watch"]


def test_who_hears_of_events_comes_from_a_secret() -> None:
    env = render(*WAYS["everything"]).container("watch", "watch").spec["env"]
    named = {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in env if "secretKeyRef" in each.get("valueFrom", {})
    }
    for name in ("NOTIFY_URLS", "ALERTMANAGER_URL", "HEARTBEAT_URL"):
        assert BY_NAME[name].secret
        assert named[name] == {"name": "who-hears", "key": name, "optional": True}
    assert "NOTIFY_URLS" not in str(render().container("watch", "watch").spec["env"])


def test_links_in_messages_lead_to_where_the_api_is() -> None:
    def address(*arguments: str) -> dict[str, str]:
        env = render(*arguments).container("watch", "watch").spec["env"]
        return {each["name"]: each["value"] for each in env if each["name"] in {"PUBLIC_URL", "TRUSTED_PROXIES"}}

    assert address() == {}
    ingress = "api.ingress.enabled=true,api.ingress.hosts={gpus.example.com}"
    assert address("--set", ingress) == {"PUBLIC_URL": "http://gpus.example.com", "TRUSTED_PROXIES": "1"}
    given = "api.settings.PUBLIC_URL=https://gpus.example.com/x,api.settings.TRUSTED_PROXIES=2"
    assert address("--set", given) == {"PUBLIC_URL": "https://gpus.example.com/x", "TRUSTED_PROXIES": "2"}


def test_one_watch_judges_and_it_can_be_left_out() -> None:
    workload = render().one("Deployment", "tele-watch")["spec"]
    assert workload["replicas"] == 1
    assert [volume["name"] for volume in workload["template"]["spec"]["volumes"]] == ["tmp", "state"]
    for way in ("default", "sqlite"):
        without = render(*WAYS[way], "--set", "watch.enabled=false")
        assert "watch" not in {container.spec["name"] for container in without.containers()}
        assert not [each for each in without.objects if each["metadata"]["name"] == "tele-watch"]
