"""Each image's entry point runs as the image says: that user, a read-only root, its ports, its health check, SIGTERM."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.containers import START_SECONDS, Container, Pod, folder_for_pod, required_tools
from tests.deploy.dockerfile import SERVICES, stages

pytestmark = pytest.mark.acceptance

SECRETS = {"BROKER_TOKEN": "a-token-of-the-test", "SECRET_KEY": "k" * 50}


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    """A place to run containers in."""
    required_tools()
    with folder_for_pod() as folder, Pod(Path(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def running(pod: Pod) -> dict[str, Container]:
    """All five services, each started when what it needs is healthy."""
    migrated = pod.start("api", "migrate", "--noinput", **SECRETS)
    assert migrated.process.wait(START_SECONDS) == 0, migrated.log
    told: dict[str, dict[str, str]] = {
        "mq-server": {},
        "collector": {"MQ_HOST": "127.0.0.1", "FLUSH_INTERVAL": "100ms"},
        # One network, so two of the three have to give way.
        "watch": {"MQ_HOST": "127.0.0.1", "METRICS_ADDR": "0.0.0.0:9104"},
        "streamer": {"SOURCE": "simulate", "SCRAPE_INTERVAL": "500ms", "METRICS_ADDR": "0.0.0.0:9103"},
        "api": {},
    }
    containers = {}
    for name, environ in told.items():
        containers[name] = pod.start(name, **SECRETS, **environ)
        containers[name].wait_until_healthy()
    return containers


def test_readings_go_all_the_way(pod: Pod, running: dict[str, Container]) -> None:
    # Beyond the loopback the API asks who asks.
    api = running["api"]
    made = pod.run(api.stage, [*api.stage.entrypoint, "apitoken", "create", "test"], api.environ)
    assert made.returncode == 0, made.stderr
    deadline = time.monotonic() + START_SECONDS
    while len(json.loads(pod.get("http://127.0.0.1:8080/api/v1/gpus", made.stdout.strip()))["data"]) < 32:
        assert time.monotonic() < deadline, [container.log for container in running.values()]
    assert json.loads(pod.get("http://127.0.0.1:9001/health"))["status"] == "healthy"
    assert "gpu_telemetry" in pod.get("http://127.0.0.1:9102/metrics")


@pytest.mark.parametrize("path", ["/app/x", "/opt/venv/x", "/etc/x", "/x"])
def test_nothing_else_can_be_written(pod: Pod, path: str) -> None:
    stage = stages()["pipeline"]
    tried = pod.run(stage, ["sh", "-c", f"id -u; touch {path}"], {})
    assert tried.stdout == f"{stage.user[0]}\n"
    assert tried.returncode != 0
    assert "ead-only" in tried.stderr


def test_a_service_that_is_away_fails_its_health_check_with_a_line(pod: Pod) -> None:
    stage = stages()["mq-server"]
    asked = pod.run(stage, stage.healthcheck, {"HTTP_ADDR": "0.0.0.0:9999"})
    assert asked.returncode == 1
    assert asked.stderr == "runbroker: 127.0.0.1:9999 does not answer: Connection refused\n"


def test_the_broker_is_not_open_to_others_by_accident(pod: Pod) -> None:
    refused = pod.start(
        "mq-server", SECRET_KEY=SECRETS["SECRET_KEY"], TCP_ADDR="0.0.0.0:9100", HTTP_ADDR="0.0.0.0:9101"
    )
    assert refused.process.wait(START_SECONDS) == 1
    assert "BROKER_TOKEN" in refused.log


def test_the_image_without_a_command_lists_the_commands(pod: Pod) -> None:
    listed = pod.start("pipeline", **SECRETS)
    assert listed.process.wait(START_SECONDS) == 0
    for command in (*SERVICES.values(), "health"):
        assert f"    {command}\n" in listed.log


def test_sigterm_drains_each_within_its_grace_period_with_status_0(running: dict[str, Container]) -> None:
    for name in (
        "api",
        "streamer",
        "watch",
        "collector",
        "mq-server",
    ):  # the others go on meanwhile, as in a rolling update
        assert running[name].process.poll() is None, running[name].log
        assert running[name].stop() == 0, running[name].log
        assert "Traceback" not in running[name].log
