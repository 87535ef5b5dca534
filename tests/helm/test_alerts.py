"""The alerts: Prometheus takes them, they fire when they should, and the chart's PrometheusRule is them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.broker.faults.tools import need
from tests.helm.chart import CHART, ROOT, WAYS, render

ALERTS = CHART / "files" / "alerts.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"


def rules() -> list[dict[str, Any]]:
    """All rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    program = need("promtool", "prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    done = promtool("test", "rules", str(Path(__file__).parent / "alerts-test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_and_explained() -> None:
    tests = (Path(__file__).parent / "alerts-test.yaml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n +exp_alerts", tests))
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert set(names) == fired
    told = set(re.findall(r"\*\*(GpuTelemetry\w+)\*\*", OPERATIONS.read_text()))
    assert told == set(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} == rule["annotations"].keys()


def test_the_charts_rule_is_the_file() -> None:
    rendered = render(*WAYS["everything"]).kind("PrometheusRule")
    assert [each["spec"] for each in rendered] == [yaml.safe_load(ALERTS.read_text())]
    assert rendered[0]["metadata"]["labels"]["release"] == "prometheus"


def test_monitors_name_ports_that_services_have() -> None:
    rendering = render(*WAYS["everything"])
    monitors = rendering.kind("ServiceMonitor")
    assert len(monitors) == 5
    for monitor in monitors:
        service = rendering.one("Service", monitor["metadata"]["name"])
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["path"] == "/metrics"
    broker = rendering.one("ServiceMonitor", "tele-mq-server")["spec"]["endpoints"][0]
    assert broker["scheme"] == "https"
    assert broker["authorization"]["credentials"] == {"name": "tele", "key": "BROKER_TOKEN"}
