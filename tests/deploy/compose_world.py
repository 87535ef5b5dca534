"""Runs what deploy/docker-compose.yml says, with a real InfluxDB and a real PostgreSQL, on a network of its own.

    unshare -n sh -c 'ip link set lo up && python -m tests.deploy.compose_world FOLDER'

The services are started as compose would: in the order of depends_on, when that is healthy or done, with that environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.deploy.compose import ROOT, read_env, resolved
from tests.deploy.containers import START_SECONDS, Container, Pod
from tests.influxd import Influxd, find_binary
from tests.postgres import Postgres, folder_for_cluster, required_bin

_PORTS = {"streamer": 9103, "watch": 9104}


def main(folder: Path) -> None:
    """All of it; an assertion fails where something is not as it should be."""
    subprocess.run(["sh", ROOT / "deploy" / "make-env.sh", folder / ".env"], check=True)
    secrets = read_env(folder / ".env")
    services = resolved(secrets)["services"]
    setup = services["influxdb"]["environment"]
    influxd = Influxd(
        find_binary(), folder / "influxd", port=8086,
        token=setup["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"], org=setup["DOCKER_INFLUXDB_INIT_ORG"],
    )  # fmt: skip
    with folder_for_cluster() as cluster, Pod(folder, names=tuple(services), own_network=False) as pod:
        postgres = Postgres(required_bin(), Path(cluster), port=5432)
        postgres.password = services["postgres"]["environment"]["POSTGRES_PASSWORD"]
        try:
            influxd.start()
            postgres.start()
            postgres.make_database(services["postgres"]["environment"]["POSTGRES_DB"])
            _check(pod, services)
        finally:
            influxd.stop()
            postgres.stop()


def _check(pod: Pod, services: dict[str, Any]) -> None:
    running = {name: _start(pod, services, name) for name in ("mq-server", "collector", "watch", "streamer", "api")}
    made = _run_to_end(pod, services, "prometheus-token")
    tokens = pod.volume(made.volume, made.stage)
    token = (tokens / "api-token").read_text().strip()
    deadline = time.monotonic() + START_SECONDS
    while len(json.loads(pod.get("http://api:8080/api/v1/gpus".replace("api:", "localhost:"), token))["data"]) < 32:
        assert time.monotonic() < deadline, "\n".join(container.log for container in running.values())
        time.sleep(0.2)
    assert json.loads(pod.get("http://localhost:8080/api/v1/stats", token))["store"]["type"] == "influxdb"
    assert "broker_uptime_seconds" in pod.get("http://localhost:9001/metrics", (tokens / "broker-token").read_text())
    assert "gpu_telemetry" in pod.get("http://localhost:8080/metrics", token)
    for name in reversed(running):
        assert running[name].stop() == 0, running[name].log
        assert "Traceback" not in running[name].log, running[name].log


def _start(pod: Pod, services: dict[str, Any], name: str) -> Container:
    """Start a service after what it depends on, and wait until it is healthy."""
    for other, told in services[name].get("depends_on", {}).items():
        if told["condition"] == "service_completed_successfully":
            _run_to_end(pod, services, other)
        # The others were started before, and waited for.
    container = pod.start(
        name, *services[name].get("command", ()), volume=_volume(services[name]), **_environ(services, name)
    )
    container.wait_until_healthy()
    return container


def _run_to_end(pod: Pod, services: dict[str, Any], name: str) -> Container:
    service = services[name]
    target = service["image"].partition("/")[2].partition(":")[0]
    if "entrypoint" in service:
        stage = pod.targets[target]
        ran = pod.run(stage, [*service["entrypoint"], *service["command"]], _environ(services, name), _volume(service))
        assert ran.returncode == 0, ran.stderr
        return Container(pod, stage, {}, subprocess.Popen(["true"]), Path(), _volume(service))
    container = pod.start(target, *service["command"], volume=f"{name}-tmpfs", **_environ(services, name))
    assert container.process.wait(START_SECONDS) == 0, container.log
    return container


def _environ(services: dict[str, Any], name: str) -> dict[str, str]:
    environ: dict[str, str] = dict(services[name]["environment"])
    if name in _PORTS:  # all are on one network here, so others have to give way to the collector
        environ["METRICS_ADDR"] = f"0.0.0.0:{_PORTS[name]}"
    return environ


def _volume(service: dict[str, Any]) -> str:
    """The volume that is mounted at STATE_DIR; of a service that keeps nothing there, one in memory."""
    volumes: list[str] = service["volumes"]
    named = (each.split(":")[0] for each in volumes if each.endswith(":/var/lib/gpu-telemetry"))
    return next(named, "watch-tmpfs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
