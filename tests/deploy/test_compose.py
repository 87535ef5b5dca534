"""deploy/docker-compose.yml and what belongs to it: every name is a setting, nothing is open or has a default password."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql

from telemetry_site.database import database_config
from telemetry_site.options import BY_NAME, OPTIONS
from tests.broker.faults.tools import need
from tests.deploy.compose import COMPOSE, ROOT, interpolated, raw, read_env, resolved, variables
from tests.deploy.containers import folder_for_pod, required_tools
from tests.deploy.dockerfile import SERVICES, stages
from tests.postgres import Postgres

MAKE_ENV = ROOT / "deploy" / "make-env.sh"
# What is said to compose itself: not a setting of ours.
COMPOSE_ONLY = {
    "INFLUXDB_PASSWORD", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD", "VERSION", "CAPTURES", "CERTIFICATES", "API_ADDRESS",
}  # fmt: skip
# Read by PostgreSQL's client library.
OF_LIBRARIES = {"PGPASSWORD": "POSTGRES_PASSWORD"}
OURS = {name: each for name, each in raw()["services"].items() if each["image"].startswith("gpu-telemetry-pipeline/")}
OPENED = {"api": 8080, "prometheus": 9090, "grafana": 3000}
SECRETS = {name for name, kinds in variables().items() if "?" in kinds}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    subprocess.run(["sh", MAKE_ENV, path], check=True)
    return path


def test_the_generated_file_is_for_its_owner_alone_and_keeps_what_it_has(env_file: Path) -> None:
    assert env_file.stat().st_mode & 0o777 == 0o600
    made = read_env(env_file)
    assert set(made) == SECRETS
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in made.values())
    env_file.write_text("BROKER_TOKEN=mine\nSECRET_KEY=\nSOURCE=dcgm\n")
    subprocess.run(["sh", MAKE_ENV, env_file], check=True)
    again = read_env(env_file)
    assert (again["BROKER_TOKEN"], again["SOURCE"]) == ("mine", "dcgm")
    assert set(again) == SECRETS | {"SOURCE"}
    assert len(again["SECRET_KEY"]) == 64


def test_nothing_starts_without_the_secrets(env_file: Path) -> None:
    made = read_env(env_file)
    resolved(made)
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            resolved({other: value for other, value in made.items() if other != name})


def test_no_secret_is_written_down_in_it() -> None:
    secret = {option.name for option in OPTIONS if option.secret} | {"POSTGRES_PASSWORD"}
    for name, service in raw()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if variable in secret or re.search("PASSWORD|TOKEN", variable):
                no_password = variable == "DATABASE_URL" and not re.search("//[^/@]*:[^/@]*@", value)
                assert ":?" in value or no_password, f"{name}: {variable}"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_service_is_a_setting_with_a_value_that_it_takes(name: str, env_file: Path) -> None:
    environ = resolved(read_env(env_file))["services"][name]["environment"]
    assert set(environ) <= set(BY_NAME) | set(OF_LIBRARIES)
    for variable, value in environ.items():
        assert isinstance(value, str), variable
        if value and variable not in OF_LIBRARIES:
            BY_NAME[variable].read(environ)


def test_every_variable_that_it_takes_from_outside_is_a_setting_or_composes_own() -> None:
    assert set(variables()) - COMPOSE_ONLY <= set(BY_NAME)
    assert set(variables()) >= COMPOSE_ONLY


def test_every_other_setting_can_be_given_to_every_service() -> None:
    for name, service in OURS.items():
        assert service["env_file"] == [{"path": "settings.env", "required": False}], name


def test_a_setting_goes_to_the_variable_of_its_name() -> None:
    for name, service in OURS.items():
        for variable, value in service["environment"].items():
            named = re.fullmatch(r"\$\{(\w+)(:.*)?\}", value)
            assert named is None or named[1] == OF_LIBRARIES.get(variable, variable), f"{name}: {variable}"


@pytest.mark.parametrize("name", raw()["services"])
def test_every_container_is_hardened(name: str) -> None:
    service = raw()["services"][name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "30s"
    assert "privileged" not in service
    assert ("cap_add" in service) == (name in {"influxdb", "postgres"})
    assert re.fullmatch(r"\S+:v?\d+\.\d+(\.\d+)?", interpolated(service["image"], {}))


def test_images_are_those_that_make_builds_in_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for name, service in OURS.items():
        image, _, tag = interpolated(service["image"], {}).partition(":")
        assert image.partition("/")[2] in stages()
        assert tag == version[1]
        if name in SERVICES:
            assert image == f"gpu-telemetry-pipeline/{name}"
            assert service["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile", "target": name}


def test_each_waits_for_what_it_needs_to_be_healthy_or_done() -> None:
    services = raw()["services"]
    for name, service in services.items():
        for other, told in service.get("depends_on", {}).items():
            assert other in services
            checked = "test" in services[other].get("healthcheck", {}) or other in SERVICES
            done_once = services[other].get("healthcheck") == {"disable": True}
            if told["condition"] == "service_healthy":
                assert checked, f"{name} waits for {other}"
            else:
                assert told["condition"] == ("service_completed_successfully" if done_once else "service_started")
    needs = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert needs["collector"] == {"mq-server", "influxdb", "migrate"}
    assert needs["watch"] == {"mq-server", "migrate"}
    assert needs["api"] == {"influxdb", "migrate"}


def test_only_the_loopback_of_this_machine_is_open_and_ports_are_those_of_the_images(env_file: Path) -> None:
    services = resolved(read_env(env_file))["services"]
    opened = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert opened == {name: [f"127.0.0.1:{port}:{port}"] for name, port in OPENED.items()}
    assert stages()["api"].ports == [8080]
    assert services["collector"]["environment"]["MQ_PORT"] == str(stages()["mq-server"].ports[0])


def test_every_file_that_is_mounted_is_there_and_every_volume_is_named() -> None:
    loaded = raw()
    used = set()
    for service in loaded["services"].values():
        for each in service.get("volumes", ()):
            source = each.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists()
            elif not source.startswith("$"):
                used.add(source)
    assert used == set(loaded["volumes"])


@pytest.mark.parametrize("password", ["two words", "p/q?r#s@t:u%20&v=w", "'quoted'\"", "ünï"])
def test_the_password_of_postgresql_may_be_any_text(password: str, env_file: Path, postgres: Postgres) -> None:
    environ = resolved({**read_env(env_file), "POSTGRES_PASSWORD": password})["services"]["api"]["environment"]
    assert environ["PGPASSWORD"] == password
    config = database_config(environ["DATABASE_URL"], env_file.parent)
    assert (config["USER"], config["HOST"], config["NAME"], config["PASSWORD"]) == ("gpu", "postgres", "inventory", "")
    # What Django says to the client library without a password in the URL.
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(password), password))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", environ["PGPASSWORD"])
        psycopg.connect(host="127.0.0.1", port=postgres.port, user=password, dbname="postgres").close()


def test_each_of_ours_has_the_certificates_and_behind_a_proxy_the_api_has_its_address(env_file: Path) -> None:
    given = {"PUBLIC_URL": "https://example.com/gpu", "TRUSTED_PROXIES": "1", "SCRAPE_TLS_CA": "/certificates/ca.crt"}
    services = resolved({**read_env(env_file), **given})["services"]
    for name in OURS:
        assert "./certificates:/certificates:ro" in services[name]["volumes"], name
    for name in ("api", "watch"):  # messages have links to the API's pages
        environ = services[name]["environment"]
        assert (environ["PUBLIC_URL"], environ["TRUSTED_PROXIES"]) == ("https://example.com/gpu", "1")
    assert services["streamer"]["environment"]["SCRAPE_TLS_CA"] == "/certificates/ca.crt"


def test_the_folder_of_tokens_is_opened_for_prometheus_after_the_last_command_that_closes_it() -> None:
    (script,) = raw()["services"]["prometheus-token"]["command"]
    lines = [line for line in script.splitlines() if not line.startswith("#")]
    assert lines[-1] == "chmod 0755 ."


def test_prometheus_scrapes_every_service_at_its_port() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {name: [f"{name}:{stages()[name].ports[-1]}"] for name in SERVICES}
    assert config["rule_files"] == ["alerts.yaml"]
    checked = subprocess.run(
        [need("promtool"), "check", "config", "--syntax-only", ROOT / "deploy" / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


def compose_go(path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compose's own loader; without it the test is skipped, or fails where REQUIRE_COMPOSE_GO is 1."""
    kept = sorted(Path("~/.cache/gpu-telemetry").expanduser().glob("compose-go-*/cmd"))
    if not kept:
        message = "needs compose's loader: run make compose-go (needs Go)"
        if os.environ.get("REQUIRE_COMPOSE_GO") == "1":
            pytest.fail(message)
        pytest.skip(message)
    command = [str(kept[-1]), "-format", "json", *flags, str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=60)


def test_compose_itself_takes_the_file_and_reads_in_it_what_these_tests_do(env_file: Path) -> None:
    loaded = compose_go(COMPOSE, "-no-interpolation")
    assert loaded.returncode == 0, loaded.stderr
    services = json.loads(loaded.stdout)["services"]
    assert {name: each.get("environment", {}) for name, each in services.items()} == {
        name: each.get("environment", {}) for name, each in raw()["services"].items()
    }
    # With all variables put in, against compose's schema and its rules.
    path = env_file.with_name("resolved.yml")
    path.write_text(yaml.safe_dump(resolved(read_env(env_file))).replace("$", "$$"))
    loaded = compose_go(path)
    assert loaded.returncode == 0, loaded.stderr
    assert (
        json.loads(loaded.stdout)["services"]["collector"]["depends_on"]["influxdb"]["condition"] == "service_healthy"
    )
    path.write_text(path.read_text().replace("read_only:", "read_onlyy:"))
    assert "read_onlyy" in compose_go(path).stderr


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_it_works_on_a_real_influxdb_and_postgresql() -> None:
    required_tools()
    from tests.influxd import find_binary
    from tests.postgres import required_bin

    find_binary(), required_bin()  # skips here, not in there
    with folder_for_pod() as folder:
        ran = subprocess.run(
            ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-m", "tests.deploy.compose_world", folder],
            cwd=ROOT, capture_output=True, text=True, timeout=380,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-6000:]
