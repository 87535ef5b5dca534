"""What the rendered pods run starts, is ready by its own probes, carries readings, and stops in time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helm.chart import WAYS, Rendering, render
from tests.helm.pods import Node
from tests.helm.test_alerts import rules

pytestmark = pytest.mark.acceptance


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    # Other users must get through to their folders.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() != "root" or "pytest" in folder.name:
            folder.chmod(folder.stat().st_mode | 0o011)
    node = Node(render(*WAYS["sqlite"]), tmp_path)
    try:
        yield node
    finally:
        node.stop_all()


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


def all_containers(rendering: Rendering) -> dict[str, str]:
    """Container -> the name that its pod would have."""
    return {"mq-server": "tele-mq-server-0", "api": "tele-api-x", "collector": "tele-api-x", "streamer": "tele-streamer-1"}


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
    deadline = time.monotonic() + 60
    while node.get_json(8080, "/api/v1/gpus")["count"] == 0:
        assert time.monotonic() < deadline, node.log(collector)
        time.sleep(0.2)

    token = rendering.environment(broker)["BROKER_TOKEN"]
    told = set()
    for port, needed in ((9001, token), (8080, ""), (9102, ""), (19102, "")):
        told |= metric_names(node.get(port, "/metrics", needed))
    assert used_names() - told == set()

    for container in (streamer, collector, api, broker):
        node.stop(container)
