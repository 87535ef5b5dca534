"""What the chart refuses, and what changes when values do: checksums, secrets, migrations."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from telemetry_site.env import SettingError
from telemetry_site.options import BY_NAME
from tests.helm.chart import CHART, WAYS, Rendering, helm, refusal, render


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("storage.type=sqlite", "storage.type=sqlite cannot be shared between pods: set api.replicaCount=1, collector.replicaCount=1"),
        ("storage.type=memory,api.replicaCount=1,api.autoscaling.enabled=true", "storage.type=memory cannot be shared"),
        ("database.type=sqlite", "database.type=sqlite cannot be shared"),
        ("database.type=sqlite,api.replicaCount=1,collector.replicaCount=2", "database.type=sqlite cannot be shared"),
        ("influxdb.url=http://influxdb:8086", "set influxdb.token, or influxdb.existingSecret"),
        ("influxdb.token=x,influxdb.existingSecret=y", "influxdb.token and influxdb.existingSecret are both given"),
        ("database.url=postgres://a/b,database.existingSecret=x", "database.url and database.existingSecret are both given"),
        ("database.url=sqlite:///x", "database.url is not a PostgreSQL's"),
        ("database.type=sqlite,api.replicaCount=1,database.existingSecret=x", "database.type=sqlite is a file"),
        ("secrets.brokerToken=fifteen-letters", "secrets.brokerToken is too short: use at least 16 characters"),
        ("streamer.source=csv", "streamer.source=csv has no capture: set streamer.data.existingConfigMap"),
        ("streamer.source=dcgm", "streamer.source=dcgm has no exporter: set streamer.targets"),
        ("streamer.data.existingConfigMap=a,streamer.data.existingClaim=b", "both given"),
        ("api.ingress.enabled=true", "api.ingress.enabled without a host name: set api.ingress.hosts"),
        ("api.autoscaling.enabled=true,api.autoscaling.minReplicas=20", "minReplicas is more than"),
        (
            "api.ingress.enabled=true,api.ingress.hosts={*.example.com},api.ingress.path=/gpu",
            "api.ingress.path below a wildcard host: set api.settings.PUBLIC_URL",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_what_to_set(arguments: str, line: str) -> None:
    assert line in refusal("--set", arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("api.replicacount=2", "additional properties 'replicacount' not allowed"),
        ("influxDB.url=x", "additional properties 'influxDB' not allowed"),
        ("mqServer.settings.FSINC=never", "at '/mqServer/settings': additional properties 'FSINC' not allowed"),
        ("settings.BROKER_TOKEN=secret", "additional properties 'BROKER_TOKEN' not allowed"),
        ("api.replicaCount=two", "at '/api/replicaCount': got string, want integer"),
        ("collector.replicaCount=-1", "at '/collector/replicaCount'"),
        ("storage.type=postgres", "at '/storage/type': value must be one of 'influxdb', 'sqlite', 'memory'"),
        ("storage.retentionPeriod=soon", "at '/storage/retentionPeriod'"),
        ("storage.retentionPeriod=30", "at '/storage/retentionPeriod'"),
        ("api.ingress.path=gpu", "at '/api/ingress/path'"),
        ("api.ingress.path=/gpu/", "at '/api/ingress/path'"),
        ("api.service.type=Public", "at '/api/service/type'"),
        ("streamer.targets=http://a", "at '/streamer/targets': got string, want array"),
    ],
)
def test_a_value_that_is_misspelt_is_refused_by_the_schema(arguments: str, line: str) -> None:
    assert line in refusal("--set", arguments)


def test_subcharts_may_add_to_what_is_global() -> None:
    assert render("--set", "global.somebodyElse=1")


def checksums(rendering: Rendering) -> dict[str, tuple[str, str]]:
    found = {}
    for each, metadata, _ in rendering.pods():
        annotations = metadata.get("annotations", {})
        if "checksum/config" in annotations:
            name = each["metadata"]["labels"]["app.kubernetes.io/component"]
            found[name] = (annotations["checksum/config"], annotations["checksum/secret"])
    return found


FIXED = (
    "secrets.secretKey=key,secrets.brokerToken=token-of-the-broker,influxdb.token=token,influxdb.password=password,"
    "postgresql.password=password"
)


def test_a_change_of_the_configuration_rolls_every_service() -> None:
    before = checksums(render("--set", FIXED))
    after = checksums(render("--set", f"{FIXED},storage.retentionPeriod=7d"))
    assert before.keys() == {"api", "collector", "mq-server", "streamer", "watch"}
    for name in before:
        assert before[name][0] != after[name][0]
        assert before[name][1] == after[name][1]


def test_a_change_of_a_secret_rolls_every_service() -> None:
    before = checksums(render("--set", FIXED))
    after = checksums(render("--set", FIXED.replace("token-of-the-broker", "another-of-the-broker")))
    for name in before:
        assert before[name][0] == after[name][0]
        assert before[name][1] != after[name][1]


def test_what_does_not_change_rolls_nothing() -> None:
    assert checksums(render("--set", FIXED)) == checksums(render("--set", f"{FIXED},podDisruptionBudget.enabled=false"))


def test_the_checksum_is_of_the_secret_that_is_written() -> None:
    # Secrets are made at random: each place that uses one must see the same.
    rendering = render("--set", "listenHost=0.0.0.0")
    assert len({secret for _, secret in checksums(rendering).values()}) == 1
    data = rendering.one("Secret", "tele")["data"]
    password = base64.b64decode(data["POSTGRES_PASSWORD"]).decode()
    assert password in base64.b64decode(data["DATABASE_URL"]).decode()


def test_made_secrets_are_long_and_never_the_same() -> None:
    one = Rendering(helm("template", "tele", str(CHART)).stdout).one("Secret", "tele")["data"]
    two = Rendering(helm("template", "tele", str(CHART)).stdout).one("Secret", "tele")["data"]
    assert one.keys() == two.keys() == {
        "SECRET_KEY", "BROKER_TOKEN", "INFLUXDB_TOKEN", "INFLUXDB_PASSWORD", "POSTGRES_PASSWORD", "DATABASE_URL",
    }  # fmt: skip
    for name, value in one.items():
        assert len(base64.b64decode(value)) >= 32
        assert value != two[name]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [str(value)]


def test_the_line_break_at_the_end_of_a_file_is_no_part_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("a secret of two lines\nor more\r\n")
    files = ("secrets.secretKey", "secrets.brokerToken", "influxdb.token", "influxdb.password", "postgresql.password")
    rendering = render(*(word for name in files for word in ("--set-file", f"{name}={path}")))
    data = {name: base64.b64decode(value).decode() for name, value in rendering.one("Secret", "tele")["data"].items()}
    url = data.pop("DATABASE_URL")
    assert set(data.values()) == {"a secret of two lines\nor more"}
    assert "telemetry:a%20secret%20of%20two%20lines%0Aor%20more@tele" in url


def test_the_broker_takes_the_token_that_the_chart_takes() -> None:
    BY_NAME["BROKER_TOKEN"].read({"BROKER_TOKEN": "sixteen-letters!"})
    assert render("--set", "secrets.brokerToken=sixteen-letters!")
    with pytest.raises(SettingError, match="too short"):
        BY_NAME["BROKER_TOKEN"].read({"BROKER_TOKEN": "fifteen-letters"})


def test_no_secret_is_written_in_plain_text() -> None:
    hidden = {
        "secrets.secretKey": "hidden-one",
        "secrets.brokerToken": "hidden-two-which-is-long-enough",
        "influxdb.token": "hidden-three",
        "influxdb.password": "hidden-four",
        "postgresql.password": "hidden-five",
    }
    rendering = render("--set", ",".join(f"{name}={value}" for name, value in hidden.items()))
    for each in rendering.objects:
        if each["kind"] != "Secret":
            assert not [text for text in texts(each) if "hidden-" in text], each["metadata"]["name"]


def test_existing_secrets_are_used_and_none_is_made() -> None:
    rendering = render(*WAYS["production"])
    assert rendering.kind("Secret") == []
    container = rendering.container("collector", "collector").spec
    refs = {
        each["name"]: (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for each in container["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    assert refs == {
        "SECRET_KEY": ("gpu-telemetry", "SECRET_KEY"),
        "BROKER_TOKEN": ("gpu-telemetry", "BROKER_TOKEN"),
        "INFLUXDB_TOKEN": ("gpu-telemetry-influxdb", "token"),
        "DATABASE_URL": ("gpu-telemetry-database", "url"),
    }
    assert not {"postgresql", "influxdb"} & {each["metadata"]["name"].rpartition("-")[2] for each in rendering.objects}


def test_only_who_needs_a_secret_is_given_it() -> None:
    rendering = render()
    given = {
        container.spec["name"]: {
            each["name"] for each in container.spec["env"] if "secretKeyRef" in each.get("valueFrom", {})
        }
        for container in rendering.ours()
        if container.component != "test"
    }
    assert given["mq-server"] == given["streamer"] == {"BROKER_TOKEN"}
    assert given["migrate"] == {"DATABASE_URL"}
    assert (
        given["api"]
        == given["collector"]
        == given["watch"]
        == {"BROKER_TOKEN", "SECRET_KEY", "DATABASE_URL", "INFLUXDB_TOKEN"}
    )


# Migrations.


def hooks(rendering: Rendering) -> dict[str, str]:
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["annotations"]["helm.sh/hook"]
        for each in rendering.objects
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }


def test_migrations_of_a_database_that_is_there_are_a_hook_that_brings_what_it_needs() -> None:
    rendering = render("--set", "database.url=postgres://u:p@db:5432/x")
    assert hooks(rendering) == {
        "Secret/tele-migrate": "pre-install,pre-upgrade",
        f"Job/{migrate_job(rendering)}": "pre-install,pre-upgrade",
        "Pod/tele-test": "test",
    }
    container = rendering.container("migrate", "migrate")
    assert rendering.environment(container)["DATABASE_URL"] == "postgres://u:p@db:5432/x"
    # Nothing that comes with the release is there yet.
    assert container.pod["serviceAccountName"] == "default"
    assert "envFrom" not in container.spec


def test_migrations_with_an_existing_secret_are_a_hook() -> None:
    rendering = render(*WAYS["production"])
    job = f"Job/{migrate_job(rendering)}"
    assert hooks(rendering) == {job: "pre-install,pre-upgrade", "Pod/tele-test": "test"}


def test_the_first_migrations_of_the_charts_own_database_run_beside_it() -> None:
    # As a hook they would run before it (and fail), or after all is ready (which never happens without them).
    assert hooks(render()) == {"Pod/tele-test": "test"}
    assert f"Job/{migrate_job(render('--is-upgrade'))}" in hooks(render("--is-upgrade"))


def migrate_job(rendering: Rendering) -> str:
    (job,) = (each for each in rendering.kind("Job") if "-migrate-" in each["metadata"]["name"])
    return str(job["metadata"]["name"])


def test_a_job_with_another_content_has_another_name() -> None:
    """A Job cannot be changed once it is applied, and Argo CD renders each version as revision 1."""

    def names(*arguments: str) -> set[str]:
        rendering = render("--set", FIXED, *arguments)
        return {each["metadata"]["name"] for each in rendering.kind("Job")}

    for way in (
        (),
        ("--is-upgrade",),
        ("--set", "database.existingSecret=mine"),
        ("-f", str(CHART / "values-capture.yaml"), "--set", "streamer.data.loop=false"),
    ):
        before = names(*way)
        assert names(*way, "--set", "podDisruptionBudget.enabled=false") == before
        for change in (
            "global.imageTag=9.9",
            "migrate.resources.limits.memory=1Gi",
            "migrate.extraEnv[0].name=X,migrate.extraEnv[0].value=1",
            "podSecurityContext.runAsUser=1000850000",
        ):
            assert not {name for name in names(*way, "--set", change) & before if "-migrate-" in name}, change
        assert all(len(name) + len("-9999") <= 63 for name in before)
    # Another database is to be migrated too.
    other = [names("--set", f"database.url=postgres://u:p@{host}/x") for host in ("one", "two")]
    assert not other[0] & other[1]
    once = ("-f", str(CHART / "values-capture.yaml"), "--set", "streamer.data.loop=false")
    sent = [names(*once, "--set", f"streamer.settings.BATCH_SIZE={size}") for size in (10, 20)]
    assert not {name for name in sent[0] & sent[1] if "-streamer-" in name}


def test_another_version_of_the_chart_has_other_jobs(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    about = (chart / "Chart.yaml").read_text()

    def names(version: str, *arguments: str) -> dict[str, str]:
        (chart / "Chart.yaml").write_text(re.sub("^version: .*", f"version: {version}", about, flags=re.MULTILINE))
        done = helm("template", "tele", str(chart), "--set", FIXED, *arguments)
        assert done.returncode == 0, done.stderr
        jobs = Rendering(done.stdout).kind("Job")
        return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each["metadata"]["name"] for each in jobs}

    once = ("-f", str(CHART / "values-capture.yaml"), "--set", "streamer.data.loop=false")
    for way in ((), ("--is-upgrade",), ("--set", "database.url=postgres://u:p@db/x"), once):
        one, again, two = names("1.2.3", *way), names("1.2.3", *way), names("1.2.4+build.5", *way)
        assert one == again
        assert one.keys() == two.keys()
        assert not set(one.values()) & set(two.values())


def test_jobs_that_have_ended_are_removed_and_argo_runs_the_one_beside_as_its_hook() -> None:
    for way in ((), ("--is-upgrade",), ("--set", "migrate.ttlSecondsAfterFinished=60")):
        rendering = render(*way)
        job = rendering.one("Job", migrate_job(rendering))
        assert job["spec"]["ttlSecondsAfterFinished"] == (60 if way and "--set" in way else 86400)
        annotations = job["metadata"]["annotations"]
        # With an annotation of its own, Argo CD passes over those of Helm.
        assert ("helm.sh/hook" in annotations) != ("argocd.argoproj.io/hook" in annotations)


def test_who_needs_the_database_waits_for_its_migrations() -> None:
    rendering = render()
    for component in ("api", "collector", "watch"):
        waiting = rendering.container(component, "wait-for-migrations")
        assert waiting.init
        assert waiting.spec["command"] == ["python", "manage.py", "waitmigrated"]


def test_notes_say_how_to_reach_it_and_what_is_synthetic(tmp_path: Path) -> None:
    # Helm prints notes only for a release, that is with a cluster: here they are rendered as an object.
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    (chart / "templates" / "notes.yaml").write_text(
        'apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: {{ tpl (.Files.Get "notes") . | toJson }}\n'
    )

    def notes(*arguments: str) -> str:
        done = helm("template", "tele", str(chart), "--namespace", "fleet", *arguments)
        assert done.returncode == 0, done.stderr
        return str(Rendering(done.stdout).one("Notes", "notes")["text"])

    text = notes()
    assert "kubectl --namespace fleet port-forward service/tele-api 8080:8080" in text
    assert "SYNTHETIC" in text
    text = notes(*WAYS["everything"])
    assert "https://gpus.example.com/swagger/index.html" in text
    assert "SYNTHETIC" not in text
    text = notes(
        "--set", "api.ingress.enabled=true,api.ingress.hosts={*.example.com,a.example.com},api.ingress.path=/gpu"
    )
    assert "http://<name>.example.com/gpu/swagger/index.html" in text
    assert "http://a.example.com/gpu/swagger/index.html" in text
    text = notes("--set", "streamer.targets={node-1:9400}")
    assert "create configmap gpu-health-metrics --from-file=dcgm-metrics.csv=deploy/dcgm-exporter/health.csv" in text
    for way in WAYS.values():
        assert "<no value>" not in notes(*way)
