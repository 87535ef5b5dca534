"""What the rendered pods run starts, is ready by its own probes, carries readings, and stops in time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helm.chart import ROOT, WAYS, render
from tests.helm.pods import Node
from tests.helm.test_alerts import rules
from tests.ingest.processes import wait_until

pytestmark = pytest.mark.acceptance


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    # Other users must get through to their folders.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() != "root" or "pytest" in folder.name:
            folder.chmod(folder.stat().st_mode | 0o011)
    targets = tmp_path / "targets.txt"
    exporter = subprocess.Popen(
        [sys.executable, "manage.py", "fakeexporter", "--hosts", "2", "--port", "0", "--list", str(targets)], cwd=ROOT
    )
    node = Node(render(*WAYS["sqlite"], "--set", f"streamer.targets={{{targets}}}"), tmp_path)
    try:
        wait_until(targets.exists, "the exporter's list")
        yield node
    finally:
        node.stop_all()
        exporter.kill()
        exporter.wait()


def metric_names(text: str) -> set[str]:
    """The names of series that an exposition has, also of those without a sample yet."""
    names = set(re.findall(r"^([a-z_]+)[{ ]", text, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def used_names() -> set[str]:
    """The names of series that the alerts are about."""
    expressions = " ".join(rule["expr"] for rule in rules())
    return set(re.findall(r"\b(?:broker|gpu_telemetry)_[a-z_]+", expressions))


def test_one_pod_of_each_carries_readings_and_tells_what_the_alerts_ask_for(node: Node) -> None:
    rendering = node.rendering
    broker = rendering.container("mq-server", "mq-server")
    api = rendering.container("api", "api")
    collector = rendering.container("api", "collector")
    streamer = rendering.container("streamer", "streamer")
    node.start(broker, "tele-mq-server-0")
    node.run(rendering.container("api", "migrate"), "tele-api-x")
    node.start(collector, "tele-api-x")
    node.start(api, "tele-api-x")
    node.start(streamer, "tele-streamer-1")
    # Beyond the loopback the API answers to a token, which is made as the chart's notes say.
    said = node.execute(api, "tele-api-x", "python", "manage.py", "apitoken", "create", "me", "--expires", "90d")
    api_token = said.split()[-1]
    wait_until(lambda: node.get_json(8080, "/api/v1/gpus", api_token)["count"] > 0, "GPUs")

    token = rendering.environment(broker)["BROKER_TOKEN"]
    told = set()
    for port, needed in ((9001, token), (8080, api_token), (9102, ""), (19102, "")):
        told |= metric_names(node.get(port, "/metrics", needed))
    assert used_names() - told == set()

    for container in (streamer, collector, api, broker):
        node.stop(container)
