"""Are the images and compose.yaml sound, as far as that can be seen without Docker?

A real linter and the schema of the Compose specification look at them; the broker of compose.yaml is started, with the
files and by the commands of its set-up, and the server that goes with it. (`make test-deb` runs what the agent's
Dockerfile runs.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from test_install import ROOT, tool

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
MADE_BY_PEOPLE = {"prometheus.token"}
yaml = pytest.importorskip("ruamel.yaml")


def loaded(file: Path) -> Any:
    return yaml.YAML(typ="safe").load(file)


def services() -> dict[str, Any]:
    return loaded(COMPOSE / "compose.yaml")["services"]


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_what_is_copied_into_an_image_is_there_and_gets_past_dockerignore(file: Path) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", file.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    assert set(copied) <= let_in
    assert "USER 10001:10001" in file.read_text()


def test_compose_follows_the_schema_of_its_specification() -> None:
    argv = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE / "compose.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_file_that_compose_mounts_is_there_and_every_image_has_a_version() -> None:
    mounts = [mount.split(":")[0] for service in services().values() for mount in service.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith(".")]
    assert len(files) >= 8
    assert {Path(name).name for name in files if not (COMPOSE / name).exists()} == MADE_BY_PEOPLE
    named = {mount for mount in mounts if not mount.startswith(".")}
    assert named == set(loaded(COMPOSE / "compose.yaml")["volumes"])
    images = {service["image"] for service in services().values()}
    assert {image for image in images if not re.search(r":v?\d+\.\d+\.\d+$", image)} == {"winnow-server"}
    for service in services().values():
        if "build" in service:
            assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_what_prometheus_and_grafana_are_given_is_understood(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    shutil.copy(COMPOSE / "prometheus.yml", folder / "prometheus.yml")
    (folder / "winnow.token").write_text("secret")
    argv = [tool("promtool"), "check", "config", str(folder / "prometheus.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source = loaded(COMPOSE / "grafana-source.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    kept = loaded(COMPOSE / "grafana-dashboards.yml")["providers"][0]["options"]["path"]
    assert any(f"{kept}/winnow.json" in mount for mount in services()["grafana"]["volumes"])
    json.loads((DEPLOY / "grafana/winnow.json").read_text())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_set_up_makes_what_broker_and_server_need(tmp_path: Path) -> None:
    """The commands of compose.yaml, its paths put elsewhere; then the two programs that it starts."""
    mosquitto = tool("mosquitto")
    broker_port, web_port, portal_port = free_port(), free_port(), free_port()
    places = {
        "/var/lib/winnow-server": str(tmp_path / "data"),
        "/etc/mosquitto/winnow": str(tmp_path / "broker"),
        "/etc/winnow": str(tmp_path / "etc"),
        "/run/fleet.acl": str(DEPLOY / "broker/fleet.acl"),
        "winnow.lan": "localhost",
        '"0.0.0.0"': '"127.0.0.1"',
        ":8883": f":{broker_port}",
        "port = 8884": f"port = {portal_port}",
        "[web]": f"[web]\nport = {web_port}",
        "listener 8883": f"listener {broker_port} 127.0.0.1",
        "$$": "$",
    }

    def moved(text: str) -> str:
        for before, after in places.items():
            text = text.replace(before, after)
        return text

    for name in ("data", "broker", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/server.toml").write_text(moved((COMPOSE / "server.toml").read_text()))
    who = "user root\n" if os.geteuid() == 0 else ""  # in the container it is started as the user who owns the key
    (tmp_path / "mosquitto.conf").write_text(who + moved((DEPLOY / "broker/mosquitto.conf").read_text()))
    script = moved(services()["setup"]["command"][0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "WINNOW_NAME": "localhost", "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second start of a fleet changes nothing
        subprocess.run(["sh", "-ec", script], env=environment, check=True, capture_output=True)
    server = ["winnow-server", "run", str(tmp_path / "etc/server.toml")]
    running = [
        subprocess.Popen([mosquitto, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL),
        subprocess.Popen(server, env=environment, stderr=subprocess.PIPE, text=True),
    ]
    try:
        assert answers(f"https://127.0.0.1:{web_port}/sign-in", running[1])
    finally:
        for process in running:
            process.terminate()
        said = running[1].communicate(timeout=30)[1]
        running[0].wait(timeout=30)
    assert f"broker mqtts://localhost:{broker_port}" in said


def answers(url: str, server: subprocess.Popen[str]) -> bool:
    context = ssl._create_unverified_context()
    until_s = time.monotonic() + 60.0
    while time.monotonic() < until_s and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.2)
    return False
