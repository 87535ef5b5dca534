"""The Grafana boards: each query is run on a real InfluxDB or Prometheus, and shows what the API says."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_django import Settings

from ingest.simulator.fleet import HEALTH_METRICS, FleetShape, SimFleet
from readings.model import Gpu, Point, PointBlock
from readings.times import SECOND
from stores.influxdb.client import InfluxConfig
from stores.open import get_store
from tests.api.conftest import Api, save
from tests.api.test_influxdb import use_influxdb
from tests.broker.faults.tools import need
from tests.deploy.compose import ROOT, raw
from tests.deploy.grafana import ALL, BOARDS, FOLDER, Question, questions
from tests.influxd import Influxd
from tests.ports import free_port

STEP_S, STEPS = 5, 180
UTIL, POWER, FB_USED = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED"
HELD_MIB = 30_000.0
INFLUX = list(questions("influxdb"))
PROMETHEUS = list(questions("prometheus"))
GPU_LEGEND = re.compile(r"synthetic-\d{3} · gpu \d · GPU-[0-9a-f]{8}( · [\w ,]+)?")


@dataclass
class Filled:
    """A bucket with a quarter of an hour of a small fleet, up to now."""

    server: Influxd
    config: InfluxConfig
    token: str
    start_ms: int
    end_ms: int
    gpus: list[Gpu]
    newest: dict[str, dict[str, float]] = field(default_factory=dict)

    def ask(self, question: Question, **variables: Any) -> list[dict[str, Any]]:
        """The series of the answer, asked as the data source does: by POST, with no organization but the token's."""
        query = question.interpolated(self.start_ms, self.end_ms, **variables)
        return self.run(query)

    def run(self, query: str) -> list[dict[str, Any]]:
        """The series of an InfluxQL statement, read with the token that Grafana has."""
        form = urllib.parse.urlencode({"db": self.config.bucket, "q": query, "epoch": "ms"}).encode()
        request = urllib.request.Request(
            self.server.url + "/query", form, {"Authorization": f"Token {self.token}"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            (result,) = json.load(answer)["results"]
        assert "error" not in result, (query, result)
        return list(result.get("series", ()))


def fleet_blocks(start_ns: int) -> Iterator[PointBlock]:
    """A synthetic fleet, a block for each step. One GPU holds memory and does nothing."""
    fleet = SimFleet(FleetShape(hosts=3, gpus_per_host=4, metrics=HEALTH_METRICS))
    for step in range(STEPS):
        gpus: list[Gpu] = []
        points: list[Point] = []
        for host in fleet.hosts:
            for sim in host.gpus:
                values: dict[str, float | None] = {name: sim.value(name) for name in HEALTH_METRICS}
                if sim is fleet.hosts[1].gpus[2]:
                    values |= {UTIL: 0.0, FB_USED: HELD_MIB}
                points.append((len(gpus), start_ns + step * STEP_S * SECOND, list(values.values())))
                gpus.append(sim.identity)
        yield PointBlock(gpus, list(HEALTH_METRICS), points)
        fleet.step(STEP_S)


def read_token(config: InfluxConfig, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the service grafana-token writes."""
    for name in ("url", "token", "org", "bucket"):
        monkeypatch.setenv(f"INFLUXDB_{name.upper()}", getattr(config, name))
    runpy.run_path(str(FOLDER / "read_token.py"))["main"](path)
    return path.read_text()


@pytest.fixture(scope="module")
def blocks() -> list[PointBlock]:
    return list(fleet_blocks((time.time_ns() // SECOND - STEPS * STEP_S) * SECOND))


@pytest.fixture
def filled(
    blocks: list[PointBlock],
    influxd: Influxd,
    influx_config: InfluxConfig,
    settings: Settings,
    db: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Filled:
    use_influxdb(settings, influx_config)
    get_store().write(blocks[:-1])
    save(get_store(), blocks[-1])
    last = blocks[-1]
    newest = {
        last.gpus[place].id: dict(zip(last.metric_names, values, strict=True)) for place, _, values in last.points
    }
    token = read_token(influx_config, tmp_path / "token", monkeypatch)
    start_ms = blocks[0].points[0][1] // 1_000_000
    return Filled(influxd, influx_config, token, start_ms, time.time_ns() // 1_000_000, last.gpus, newest)  # type: ignore[arg-type]


def legend(alias: str, tags: dict[str, str]) -> str:
    """An alias with the tags of its series put in."""
    return re.sub(r"\$tag_(\w+)", lambda match: tags[match[1]], alias)


def test_every_query_on_the_store_has_an_answer_whose_legend_tells_the_gpu(filled: Filled) -> None:
    assert len(INFLUX) > 40
    host, uuid = "synthetic-002", next(gpu.uuid for gpu in filled.gpus if gpu.pod)
    for question in INFLUX:
        multi = {each["name"] for each in BOARDS[question.board]["templating"]["list"] if each.get("multi")}
        series = filled.ask(question, host=ALL if "host" in multi else host, gpu=uuid)
        assert series, question
        for each in series:
            # Of a window without readings nothing is said, but not all may be so.
            assert any(value is not None for row in each["values"] for value in row[1:]), question
            if (alias := question.target.get("alias")) and "uuid" in each.get("tags", {}):
                assert GPU_LEGEND.fullmatch(question.shown(legend(alias, each["tags"]))), question


@pytest.mark.parametrize("hosts", [["synthetic-001"], ["synthetic-001", "synthetic-003"]])
def test_a_choice_of_hosts_is_kept_to(hosts: list[str], filled: Filled) -> None:
    (power,) = (each for each in INFLUX if (each.board, each.title) == ("fleet", "Power by host"))
    assert [each["tags"]["hostname"] for each in filled.ask(power, host=hosts)] == hosts


def one_value(filled: Filled, title: str) -> float:
    """What a tile of the fleet's board shows."""
    (question,) = (
        each for each in INFLUX if (each.board, each.title, each.panel.get("type")) == ("fleet", title, "stat")
    )
    (series,) = filled.ask(question, host=ALL)
    ((_, value),) = series["values"]
    return float(value)


def test_the_tiles_say_what_the_api_says(filled: Filled) -> None:
    api = Api()
    hosts = api.get("/api/v1/hosts")["data"]
    newest = list(filled.newest.values())
    assert one_value(filled, "GPUs reporting") == sum(host["reporting"] for host in hosts) == len(newest)
    watts = sum(each[POWER] for each in newest)
    assert one_value(filled, "Power") == pytest.approx(sum(host["power_watts"] for host in hosts), abs=0.01)
    assert one_value(filled, "Power") == pytest.approx(watts)
    assert one_value(filled, "Mean utilisation") == pytest.approx(sum(each[UTIL] for each in newest) / len(newest))
    assert one_value(filled, "GPUs at 0 %") == sum(each[UTIL] == 0 for each in newest)
    assert one_value(filled, "Idle but holding memory") == 1
    assert one_value(filled, "Hottest GPU") == max(each["DCGM_FI_DEV_GPU_TEMP"] for each in newest)


def test_a_gpu_that_stopped_reporting_is_in_no_tile(filled: Filled) -> None:
    filled.end_ms += 6 * 60_000
    for title in ("GPUs reporting", "Power"):
        with pytest.raises(ValueError, match="not enough values"):
            one_value(filled, title)


def test_power_over_time_is_added_up_over_gpus_and_never_over_time(filled: Filled, blocks: list[PointBlock]) -> None:
    (power,) = (each for each in INFLUX if (each.board, each.title) == ("fleet", "Power by host"))
    expected: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for block in blocks:
        place_of = block.metric_names.index(POWER)
        for place, time_ns, values in block.points:
            gpu, value = block.gpus[place], values[place_of]
            if value is not None:
                expected[gpu.hostname, time_ns // (10 * SECOND) * 10_000][gpu.uuid].append(value)
    shown = {
        (series["tags"]["hostname"], at): value
        for series in filled.ask(power, host=ALL)
        for at, value in series["values"]
        if value is not None
    }
    assert shown.keys() == expected.keys()
    for key, by_gpu in expected.items():
        assert shown[key] == pytest.approx(sum(sum(each) / len(each) for each in by_gpu.values()))


def test_the_table_of_idle_gpus_names_the_one_that_holds_memory(filled: Filled) -> None:
    (question,) = (each for each in INFLUX if each.title == "Idle but holding memory" and each.panel["type"] == "table")
    (series,) = filled.ask(question, host=ALL)
    assert series["tags"] == {"hostname": "synthetic-002", "gpu_id": "2", "uuid": filled.gpus[6].uuid}
    assert series["values"][0][series["columns"].index("memory")] == HELD_MIB


def test_grafanas_token_reads_the_bucket_and_can_do_nothing_else(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    assert path.stat().st_mode & 0o777 == 0o444
    assert read_token(filled.config, path, monkeypatch) == filled.token  # made once
    before = filled.run('SELECT count("DCGM_FI_DEV_GPU_UTIL") FROM "gpu"')
    for ask in ('DELETE FROM "gpu"', 'DROP MEASUREMENT "gpu"'):
        with pytest.raises((AssertionError, urllib.error.HTTPError)):
            filled.run(ask)
    assert filled.run('SELECT count("DCGM_FI_DEV_GPU_UTIL") FROM "gpu"') == before
    target = f"/api/v2/write?org={filled.config.org}&bucket={filled.config.bucket}"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        filled.server.ask("POST", target, "gpu x=1", token=filled.token)


# The files themselves.


def test_boards_look_alike_and_have_units_titles_and_panels_beside_each_other() -> None:
    assert set(BOARDS) == {"fleet", "host", "gpu", "pipeline"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        taken: set[tuple[int, int]] = set()
        assert board["tags"] == ["gpu-telemetry"]
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            assert panel["title"]
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["fieldConfig"]["defaults"].get("custom", {}).get("spanNulls", False) is False
            unit = panel["fieldConfig"]["defaults"]
            if unit["unit"] == "percent" and panel["type"] in {"timeseries", "status-history"}:
                assert (unit["min"], unit["max"]) == (0, 100)


def test_links_between_boards_lead_to_boards_with_those_variables() -> None:
    by_uid = {board["uid"]: {each["name"] for each in board["templating"]["list"]} for board in BOARDS.values()}
    links = re.findall(r'"/d/([\w-]+)\?([^"]*)"', json.dumps(list(BOARDS.values())))
    assert links
    for uid, query in links:
        assert set(re.findall(r"var-(\w+)=", query)) <= by_uid[uid]
        # Grafana itself leaves & and # in a name as they are.
        assert re.findall(r"=\$\{([^}]*)\}", query) == re.findall(r"=\$\{([^}]*:percentencode)\}", query)


def test_compose_gives_grafana_the_files_variables_and_folders_that_it_names() -> None:
    service = raw()["services"]["grafana"]
    mounts = dict(each.removesuffix(":ro").split(":") for each in service["volumes"])
    (sources,) = (FOLDER / "provisioning" / "datasources").glob("*.yaml")
    (providers,) = (FOLDER / "provisioning" / "dashboards").glob("*.yaml")
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/fleet.json"
    text = sources.read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= set(service["environment"])
    (token,) = re.findall(r"\$__file\{(\S+)\}", text)
    assert token.rpartition("/")[0] == mounts["grafana-tokens"]
    (script,) = raw()["services"]["grafana-token"]["command"]
    assert f"/{token.rpartition('/')[2]}\n" in script
    loaded = yaml.safe_load(text)["datasources"]
    assert {each["type"] for each in loaded} == {"influxdb", "prometheus"}
    assert loaded[1]["url"] == f"http://prometheus:{raw()['services']['prometheus']['ports'][0].rpartition(':')[2]}"


# The board of the pipeline, on a real Prometheus that scrapes the real services.


@contextmanager
def prometheus(folder: Path, targets: dict[str, int]) -> Iterator[str]:
    """A Prometheus that scrapes these ports each second; yields its address."""
    port = free_port()
    jobs = [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]} for name, at in targets.items()]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    command = [need("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


# A blank number, a row of a CPU, and a label that is there twice: something to refuse, to pass over and to remark on. And a fault.
FAULTY = """
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-11111111-2222-3333-4444-555555555555",Hostname="h"} 50
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-11111111-2222-3333-4444-555555555555",Hostname="h"} 9223372036854775794
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-11111111-2222-3333-4444-555555555555",Hostname="h",pod="a",pod="b"} 50
DCGM_FI_DEV_ROW_REMAP_FAILURE{gpu="0",UUID="GPU-11111111-2222-3333-4444-555555555555",Hostname="h"} 1
DCGM_FI_DEV_CPU_UTIL_TOTAL{cpu="0",Hostname="h"} 0.5
"""


@contextmanager
def services(state: Path) -> Iterator[dict[str, int]]:
    """Every service as a process of its own, and a faulty exporter; yields the ports of their metrics."""
    ports = {name: free_port() for name in ("publish", "mq-server", "collector", "streamer", "api")}
    exporter = free_port()
    (state / "exporter").mkdir()
    (state / "exporter" / "metrics").write_text(FAULTY)
    environ = {
        **os.environ,
        "STATE_DIR": str(state),
        "MQ_PORT": str(ports["publish"]),
        "TCP_ADDR": f"127.0.0.1:{ports.pop('publish')}",
        "HTTP_ADDR": f"127.0.0.1:{ports['mq-server']}",
        "SCRAPE_INTERVAL": "500ms",
        "COLLECT_INTERVAL": "200ms",
        "FLUSH_INTERVAL": "200ms",
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    commands = {
        "exporter": [
            sys.executable,
            "-m",
            "http.server",
            str(exporter),
            "-b",
            "127.0.0.1",
            "-d",
            str(state / "exporter"),
        ],
        "broker": [*manage, "runbroker"],
        "watch": [*manage, "watch"],
        "collector": [*manage, "collect", "--metrics-addr", f"127.0.0.1:{ports['collector']}"],
        "streamer": [*manage, "stream", "--source", "dcgm", "--targets", f"http://127.0.0.1:{exporter}/metrics"],
        "api": [*manage, "serve", "--port", str(ports["api"]), "--web-concurrency", "1"],
    }
    commands["streamer"] += ["--metrics-addr", f"127.0.0.1:{ports['streamer']}"]
    with ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((state / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield ports


@pytest.mark.acceptance
@pytest.mark.timeout(180)
def test_every_query_on_prometheus_has_an_answer(tmp_path: Path) -> None:
    need("prometheus")
    (tmp_path / "state").mkdir(mode=0o700)
    waiting = {str(each): each for each in PROMETHEUS}
    assert len(waiting) == len(PROMETHEUS) > 15
    with services(tmp_path / "state") as ports, prometheus(tmp_path, ports) as url:
        deadline = time.monotonic() + 90
        while waiting:
            for name, question in list(waiting.items()):
                now = time.time()
                query = question.interpolated(0, 0)
                form = urllib.parse.urlencode({"query": query, "start": now - 10, "end": now, "step": 1})
                try:
                    with urllib.request.urlopen(f"{url}/api/v1/query_range?{form}", timeout=10) as answer:
                        found = json.load(answer)["data"]["result"]
                except OSError:
                    found = []
                values = [float(value) for each in found for _, value in each["values"]]
                if any(not math.isnan(value) for value in values):
                    del waiting[name]
            assert time.monotonic() < deadline, "\n".join(
                [*waiting, *(path.read_text()[-1000:] for path in (tmp_path / "state").glob("*.log"))]
            )
            time.sleep(0.3)
