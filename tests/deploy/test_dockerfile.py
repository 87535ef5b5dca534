"""deploy/Dockerfile: what it says holds, without a container engine. test_images.py runs what it describes."""

from __future__ import annotations

import re
import subprocess

import pytest

from telemetry_site import options
from telemetry_site.options import BY_NAME
from tests.deploy.dockerfile import DOCKERFILE, ROOT, SERVICES, Stage, instructions, stages
from tests.test_imports import ROOMS

PIPELINE = stages()["pipeline"]


def ignored() -> list[str]:
    """The names that .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def target(name: str) -> Stage:
    return stages()[name]


def test_every_stage_is_built_from_a_pinned_image_or_from_another_stage() -> None:
    found = stages()
    pinned = next(each.rest for each in instructions(DOCKERFILE.read_text()) if each.name == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", pinned)
    assert {stage.base for stage in found.values()} <= {"${PYTHON_IMAGE}", *found}


def test_every_file_that_is_copied_is_there_and_in_the_build_context() -> None:
    sources = [source for stage in stages().values() for some, _ in stage.copies() for source in some]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(sources) == set(ignored())


def test_every_room_is_in_the_image() -> None:
    copied = {source for some, _ in stages()["build"].copies() for source in some}
    assert copied >= ROOMS | {"manage.py", "gunicorn.conf.py"}


def test_nothing_comes_from_the_context_into_the_last_stages_and_nothing_is_installed_there() -> None:
    for name in ("pipeline", *SERVICES):
        stage = target(name)
        assert stage.copies() == []
        runs = [each.rest for each in stage.instructions if each.name == "RUN"]
        assert len(runs) == 1
        assert runs[0].startswith("rm -rf ")  # pip goes; nothing comes


def test_requirements_are_installed_by_hash_and_without_a_compiler() -> None:
    install = next(each.rest for each in stages()["build"].instructions if each.name == "RUN" and "pip " in each.rest)
    assert "--require-hashes --only-binary :all: -r /build/requirements.txt" in install


@pytest.mark.parametrize("name", ["pipeline", *SERVICES])
def test_the_user_is_a_number_and_not_root(name: str) -> None:
    stage = target(name)
    assert all(number >= 10_000 for number in stage.user)
    assert stage.entrypoint == ["python", "/app/manage.py"]
    assert stage.workdir == "/app"


@pytest.mark.parametrize(("name", "command"), SERVICES.items())
def test_a_target_runs_its_service_and_asks_that_whether_it_is_well(name: str, command: str) -> None:
    stage = target(name)
    assert stage.argv == ["python", "/app/manage.py", command]
    assert stage.healthcheck == ["python", "/app/manage.py", "health", command]


def test_ports_are_those_of_the_settings() -> None:
    env = PIPELINE.env
    tcp, http = (option.parse(env[option.name]) for option in (options.TCP_ADDR, options.HTTP_ADDR))
    metrics = options.METRICS_ADDR.parse(env["METRICS_ADDR"])
    assert metrics is not None
    assert (
        target("mq-server").ports
        == [tcp.port, http.port]
        == [options.TCP_ADDR.read({}).port, options.HTTP_ADDR.read({}).port]
    )
    assert target("streamer").ports == target("collector").ports == target("watch").ports == [metrics.port]
    assert target("api").ports == [options.PORT.parse(env["PORT"])] == [options.PORT.read({})]


def test_every_name_in_its_environment_is_a_setting_or_the_systems() -> None:
    own = {"PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    env = PIPELINE.env
    assert set(env) - own <= set(BY_NAME)
    for name in set(env) - own:
        BY_NAME[name].read(env)


def test_no_secret_is_in_it() -> None:
    text = DOCKERFILE.read_text()
    assert [option.name for option in options.OPTIONS if option.secret and re.search(rf"\b{option.name}=", text)] == []


def make(*arguments: str) -> str:
    run = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]


@pytest.mark.parametrize("name", [*SERVICES, "pipeline"])
def test_make_builds_each_target_under_its_name_and_version(name: str) -> None:
    for line in (make(f"docker-build-{name}"), make("docker-build")):
        assert f"--target {name} " in line
        assert f"--tag gpu-telemetry-pipeline/{name}:{VERSION} " in line


@pytest.mark.parametrize("registry", ["registry.example.com/team", "registry.example.com/team/"])
def test_make_pushes_to_a_registry_with_or_without_a_slash_at_its_end(registry: str) -> None:
    lines = make("docker-push", f"DOCKER_REGISTRY={registry}")
    for name in (*SERVICES, "pipeline"):
        assert f"push registry.example.com/team/gpu-telemetry-pipeline/{name}:{VERSION} " in lines


def test_make_pushes_nowhere_without_a_registry() -> None:
    run = subprocess.run(["make", "docker-push"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0
    assert "DOCKER_REGISTRY" in run.stderr
