"""What the rendered pods run starts, is ready by its own probes, carries readings, and stops in time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helm.chart import ROOT, WAYS, Rendering, render
from tests.helm.pods import Node
from tests.helm.test_alerts import rules
from tests.influxd import Influxd
from tests.ingest.processes import wait_until
from tests.postgres import Postgres

pytestmark = pytest.mark.acceptance


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Path]:
    """The list of two exporters."""
    path = tmp_path / "targets.txt"
    exporter = subprocess.Popen(
        [sys.executable, "manage.py", "fakeexporter", "--hosts", "2", "--port", "0", "--list", str(path)], cwd=ROOT
    )
    try:
        wait_until(path.exists, "the exporter's list")
        yield path
    finally:
        exporter.kill()
        exporter.wait()


@contextmanager
def node(folder: Path, rendering: Rendering) -> Iterator[Node]:
    # Other users must get through to their folders.
    for each in (folder, *folder.parents):
        if "pytest" in each.name:
            each.chmod(each.stat().st_mode | 0o011)
    node = Node(rendering, folder)
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


def carries_readings(node: Node, pods: dict[str, str]) -> set[str]:
    """Start a pod of each component (of that name), see readings arrive at the API, stop them; the names of all series that they told."""
    rendering = node.rendering
    broker, api, collector, watch, streamer = (
        rendering.container(*each)
        for each in (
            ("mq-server", "mq-server"),
            ("api", "api"),
            next((each.component, "collector") for each in rendering.ours() if each.spec["name"] == "collector"),
            next((each.component, "watch") for each in rendering.ours() if each.spec["name"] == "watch"),
            ("streamer", "streamer"),
        )
    )
    node.start(broker, pods["mq-server"])
    for each in rendering.ours():
        if each.component == "migrate":
            node.run(each, "tele-migrate")
    for each in rendering.ours():
        if each.init:
            node.run(each, pods[each.component])
    node.start(collector, pods[collector.component])
    node.start(watch, pods[watch.component])
    node.start(api, pods["api"])
    node.start(streamer, pods["streamer"])
    # Beyond the loopback the API answers to a token, which is made as the chart's notes say.
    said = node.execute(api, pods["api"], "python", "manage.py", "apitoken", "create", "me", "--expires", "90d")
    token = said.split()[-1]
    wait_until(lambda: node.get_json(8080, "/api/v1/gpus", token)["count"] > 0, "GPUs")
    wait_until(lambda: "gpu_telemetry_watch_age_seconds" in node.get(8080, "/metrics", token), "what the watch wrote")
    broker_token = rendering.environment(broker)["BROKER_TOKEN"]
    told: set[str] = set()
    for port, needed in ((9001, broker_token), (8080, token), (9102, ""), (9103, ""), (19102, "")):
        told |= metric_names(node.get(port, "/metrics", needed))
    for container in (streamer, watch, collector, api, broker):
        node.stop(container)
    return told


def test_one_pod_of_each_carries_readings_and_tells_what_the_alerts_ask_for(tmp_path: Path, targets: Path) -> None:
    rendering = render(*WAYS["sqlite"], "--set", f"streamer.targets={{{targets}}}")
    with node(tmp_path, rendering) as here:
        told = carries_readings(
            here, {"mq-server": "tele-mq-server-0", "api": "tele-api-x", "streamer": "tele-streamer-1"}
        )
    assert used_names() - told == set()


def test_on_influxdb_and_postgresql(tmp_path: Path, targets: Path, influxd: Influxd, postgres: Postgres) -> None:
    config = influxd.config()
    values = {
        "streamer.targets": f"{{{targets}}}",
        "influxdb.url": influxd.url,
        "influxdb.token": influxd.token,
        "influxdb.bucket": config.bucket,
        "database.url": postgres.make_database("chart"),
    }
    rendering = render("--set", ",".join(f"{name}={value}" for name, value in values.items()))
    pods = {
        "mq-server": "tele-mq-server-0",
        "api": "tele-api-x",
        "collector": "tele-collector-0",
        "watch": "tele-watch-x",
        "streamer": "tele-streamer-1",
    }
    with node(tmp_path, rendering) as here:
        assert carries_readings(here, pods)
    written = influxd.query(config.bucket, "SELECT count(DCGM_FI_DEV_GPU_UTIL) FROM gpu")
    assert written[0][1] > 0


def test_each_streamers_pod_streams_its_share_of_every_key_of_a_config_map(tmp_path: Path) -> None:
    """A volume of a ConfigMap is laid as the kubelet lays it: files in a dated folder, links to them, and a capture in any key."""
    rendering = render(*WAYS["capture-once"])
    container = rendering.container("streamer", "streamer")
    folder = tmp_path / "data"
    dated = folder / "..2026_01_01_00_00_00.1"
    dated.mkdir(parents=True)
    (folder / "..data").symlink_to(dated.name)
    for name in ("telemetry.csv", "metrics.csv", "more"):
        subprocess.run(
            [sys.executable, "manage.py", "makecapture", str(dated / name), "--hosts", "2", "--samples", "2"],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        (folder / name).symlink_to(f"..data/{name}")
    rows = sum(len((dated / name).read_text().splitlines()) - 1 for name in ("telemetry.csv", "metrics.csv", "more"))
    with node(tmp_path, rendering) as here:
        read = []
        for number in range(3):
            here.replaced = {"JOB_COMPLETION_INDEX": str(number)}
            said = here.execute(
                container, f"tele-streamer-1-{number}", *container.spec["command"],
                container.spec["args"][0] + " --dry-run",
                data=folder,
            )  # fmt: skip
            found = re.search(r"^(\d+) readings$", said, re.MULTILINE)
            assert found is not None, said
            read.append(int(found[1]))
    assert all(read)
    assert sum(read) == rows
