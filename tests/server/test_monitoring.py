"""Do the alert rules fire, and do rules and dashboard speak of figures that there are?"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_words import heartbeat
from prometheus_client import CollectorRegistry, generate_latest
from tool import tool

from edge_agent import metrics as agent_metrics
from edge_agent.contract.wire import DriftState, LinkState
from server.store.store import Store
from server.web.fleet_table import FleetTable
from server.web.live import Pulse
from server.web.metrics import Figures

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES, TESTS = DEPLOY / "prometheus" / "winnow.rules.yml", DEPLOY / "prometheus" / "winnow.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "winnow.json"


@pytest.fixture
def promtool() -> str:
    return tool("promtool")


def run(promtool: str, *arguments: object, text: str = "") -> None:
    command = [promtool, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, input=text, cwd=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_good_and_each_fires_when_it_should(promtool):
    run(promtool, "check", "rules", RULES.name)
    run(promtool, "test", "rules", TESTS.name)
    run(promtool, "check", "config", "--syntax-only", "prometheus.yml")


def test_every_rule_is_tried_quiet_and_loud():
    rules = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(rules) > 10
    assert {*re.findall(r"- \{ alertname: (\w+), eval_time", TESTS.read_text())} == {*rules}
    assert {*re.findall(r"- alertname: (\w+)", TESTS.read_text())} == {*rules}


@pytest.fixture
def named(tmp_path) -> set[str]:
    """What the server and an agent serve."""
    store = Store.open(tmp_path)
    table = FleetTable(store, Pulse(store), now_ms=lambda: 0)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(store, table, now_ms=lambda: 0))
    served = generate_latest(registry).decode() + agent_text()
    store.close()
    return {*re.findall(r"^# TYPE (\w+)", served, re.MULTILINE)} | {"up"}


def agent_text() -> str:
    from msgspec.structs import replace

    drift = DriftState(epoch=0, watching=True, group_samples=1, statistic=0.5, threshold=9.0)
    link = LinkState(sent_bytes=1, received_bytes=2)
    return agent_metrics.text(replace(heartbeat("a"), drift=drift, link=link, temperature_c=50.0))


def panels() -> list[dict]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def test_rules_and_dashboard_name_figures_that_there_are(named):
    said = re.findall(r"\b(?:winnow_\w+|up)\b", " ".join(re.findall(r"expr: (.*)", RULES.read_text())))
    assert {*said} <= named
    dashboard = re.findall(r"\bwinnow_\w+", " ".join(expressions()) + DASHBOARD.read_text())
    assert len({*dashboard}) > 20
    assert {*dashboard} <= named


def test_the_queries_of_the_dashboard_can_be_read(promtool, tmp_path):
    lines = ["groups:", "- name: dashboard", "  rules:"]
    for number, expression in enumerate(expressions()):
        plain = expression.replace("$instance", ".*")
        lines += [f"  - record: panel:{number}", f"    expr: {json.dumps(plain)}"]
    (tmp_path / "rules.yml").write_text("\n".join(lines))
    run(promtool, "check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_is_whole():
    board = json.loads(DASHBOARD.read_text())
    assert len({one["id"] for one in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for one in board["panels"]:
        at = one["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, one["title"]
        taken |= cells
    variables = {one["name"] for one in board["templating"]["list"]}
    assert {*re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())} <= variables


def test_what_an_agent_serves_is_good(promtool):
    run(promtool, "check", "metrics", text=agent_text())
